// Package js has the browser's half of package session, for programs that serve
// it to their pages:
//
//	http.Handle("/js/", http.StripPrefix("/js/", http.FileServerFS(js.Files)))
//
// and in the page
//
//	import { Session } from "/js/session.js";
package js

import "embed"

// Files has session.js, the module, and session.d.ts, its types. They change
// together with the library, so that both halves always understand each other.
//
//go:embed session.js session.d.ts
var Files embed.FS
