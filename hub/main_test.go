package hub

import (
	"os"
	"testing"

	"github.com/seed-07372d5a/websocket/internal/leak"
)

func TestMain(m *testing.M) { os.Exit(leak.Run(m)) }
