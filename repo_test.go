package websocket

import (
	"bytes"
	"flag"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write api.txt instead of comparing with it")

// parse reads the Go files of a directory, without its tests.
func parse(t *testing.T, dir string) (*token.FileSet, map[string]*ast.File) {
	t.Helper()
	fset, files := token.NewFileSet(), map[string]*ast.File{}
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		files[filepath.Base(name)] = f
	}
	return fset, files
}

// promised are the packages whose API is a promise.
var promised = []string{".", "engine", "hub", "reconnect", "session", "session/js", "wstest"}

// api.txt lists what is exported, for other packages than the root with their
// directory: changing it is a decision. To make it, run
// go test -run TestAPI -update.
func TestAPI(t *testing.T) {
	var got strings.Builder
	for _, dir := range promised {
		for _, line := range exported(t, dir) {
			if dir != "." {
				line = dir + ": " + line
			}
			got.WriteString(line + "\n")
		}
	}
	if *update {
		require.NoError(t, os.WriteFile("api.txt", []byte(got.String()), 0o644))
	}
	want, err := os.ReadFile("api.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got.String())
}

// exported lists what a package exports.
func exported(t *testing.T, dir string) []string {
	fset, files := parse(t, dir)
	var lines []string
	add := func(prefix string, node any) {
		var b bytes.Buffer
		require.NoError(t, printer.Fprint(&b, fset, node))
		lines = append(lines, strings.Join(strings.Fields(prefix+b.String()), " "))
	}
	for _, f := range files {
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && (d.Recv == nil || exportedType(d.Recv.List[0].Type)) {
					add("", &ast.FuncDecl{Recv: d.Recv, Name: d.Name, Type: d.Type})
				}
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.ValueSpec:
						for _, n := range s.Names {
							if n.IsExported() {
								add(d.Tok.String()+" ", n)
							}
						}
					case *ast.TypeSpec:
						if s.Name.IsExported() {
							addType(add, s)
						}
					}
				}
			}
		}
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

func exportedType(e ast.Expr) bool {
	if s, ok := e.(*ast.StarExpr); ok {
		e = s.X
	}
	return ast.IsExported(e.(*ast.Ident).Name)
}

// addType lists a type, and each exported field of a struct.
func addType(add func(string, any), s *ast.TypeSpec) {
	st, ok := s.Type.(*ast.StructType)
	if !ok {
		add("type "+s.Name.Name+" ", s.Type)
		return
	}
	add("type "+s.Name.Name+" struct", ast.NewIdent(""))
	for _, f := range st.Fields.List {
		for _, n := range f.Names {
			if n.IsExported() {
				add("type "+s.Name.Name+" struct, "+n.Name+" ", f.Type)
			}
		}
		if len(f.Names) == 0 {
			add("type "+s.Name.Name+" struct, embeds ", f.Type)
		}
	}
}

// DESIGN section 2: the machine is pure, the root stands on the standard library
// alone, and arrows point at what is imported.
func TestImports(t *testing.T) {
	const module = "github.com/seed-07372d5a/websocket"
	pure := map[string]bool{"frame.go": true, "mask.go": true, "utf8.go": true, "machine.go": true}
	_, files := parse(t, ".")
	for name, f := range files {
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			require.False(t, strings.Contains(path, ".") && !strings.HasPrefix(path, module+"/internal/"), "%s imports %s", name, path)
			if pure[name] {
				require.Contains(t, []string{"encoding/binary", "math", "math/bits", "unicode/utf8"}, path, name)
			}
		}
	}
	_, files = parse(t, "engine")
	for name, f := range files {
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			require.False(t, strings.Contains(path, ".") && path != module, "engine/%s imports %s", name, path)
		}
	}
	_, files = parse(t, "wstest")
	for name, f := range files {
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			require.False(t, strings.Contains(path, ".") && path != module && path != module+"/internal/memnet", "wstest/%s imports %s", name, path)
			require.NotContains(t, []string{"testing", "flag"}, path, "wstest/%s: for programs too", name)
		}
	}
	_, files = parse(t, "hub")
	require.NotEmpty(t, files)
	for name, f := range files {
		for _, i := range f.Imports {
			path := strings.Trim(i.Path.Value, `"`)
			require.False(t, strings.Contains(path, ".") && path != module, "hub/%s imports %s", name, path)
		}
	}
}

// DESIGN section 2: reconnect and session stand on the root and the standard
// library; session may use reconnect.
func TestImportsOfClients(t *testing.T) {
	const module = "github.com/seed-07372d5a/websocket"
	for dir, may := range map[string][]string{
		"reconnect": {module},
		"session":   {module, module + "/reconnect"},
	} {
		_, files := parse(t, dir)
		require.NotEmpty(t, files)
		for name, f := range files {
			for _, i := range f.Imports {
				path := strings.Trim(i.Path.Value, `"`)
				require.False(t, strings.Contains(path, ".") && !slices.Contains(may, path), "%s/%s imports %s", dir, name, path)
			}
		}
	}
}

// The module works from outside, as go get would bring it, and links nothing but
// the standard library.
func TestOutside(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program")
	}
	root, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	write("go.mod", "module example.com/outside\n\ngo 1.25\n\nrequire github.com/seed-07372d5a/websocket v0.0.0\n\n"+
		"replace github.com/seed-07372d5a/websocket => "+root+"\n")
	write("main.go", `package main

import (
	"context"
	"fmt"
	"net/http/httptest"

	"github.com/seed-07372d5a/websocket"
)

func main() {
	s := httptest.NewServer(&websocket.Server{Handler: func(ctx context.Context, c *websocket.Conn) {
		for m, err := range c.Messages(ctx) {
			if err != nil {
				return
			}
			c.Write(ctx, m)
		}
	}})
	c, err := websocket.Dial(context.Background(), s.URL, nil)
	if err != nil {
		panic(err)
	}
	c.Write(context.Background(), websocket.Text("from outside"))
	m, err := c.Read(context.Background())
	fmt.Println(string(m.Data), err, c.Close(websocket.CloseNormalClosure, ""))
}
`)
	run := func(args ...string) string {
		cmd := exec.Command("go", args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "%s", out)
		return string(out)
	}
	require.Equal(t, "from outside <nil> <nil>\n", run("run", "-mod=mod", "."))
	deps := run("list", "-mod=mod", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".")
	for _, dep := range strings.Fields(deps) {
		require.Regexp(t, `^(github\.com/seed-07372d5a/websocket(/internal/.*)?|example\.com/outside)$`, dep)
	}
}

// The README's Go code is that of the examples, which compile and run.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	require.NoError(t, err)
	examples, err := os.ReadFile("example_test.go")
	require.NoError(t, err)
	blocks := strings.Split(string(readme), "```go\n")[1:]
	require.NotEmpty(t, blocks)
	undent := func(s string) string {
		var out []string
		for line := range strings.Lines(s) {
			out = append(out, strings.TrimSpace(line))
		}
		return strings.Join(out, "\n")
	}
	for _, b := range blocks {
		code, _, _ := strings.Cut(b, "```")
		require.Contains(t, undent(string(examples)), undent(code))
	}
}

// docs/testing.md names tests: there are such tests.
func TestTestingDoc(t *testing.T) {
	doc, err := os.ReadFile("docs/testing.md")
	require.NoError(t, err)
	var all strings.Builder
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			src, _ := os.ReadFile(path)
			all.Write(src)
		}
		return err
	}))
	names := regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w+`).FindAllString(string(doc), -1)
	require.Greater(t, len(names), 50)
	for _, name := range names {
		require.Contains(t, all.String(), "func "+name+"(", name)
	}
	for _, file := range regexp.MustCompile(`\b[a-z_]+_test\.go\b`).FindAllString(string(doc), -1) {
		require.FileExists(t, file)
	}
}
