// SPDX-License-Identifier: GPL-2.0-only

package system

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"

	"netsysrq/internal/vm"
)

// The unit of the agent, and what starts it: at the very beginning, so that a
// machine that hangs while it boots can be asked why.
const (
	agentPath = "/unit/bench/agent"
	agentUnit = "/unit/systemd/system/bench-agent.service"
	agentWant = "/unit/systemd/system/sysinit.target.wants/bench-agent.service"
)

// initrd returns what is booted before the image's own systemd. The image itself
// knows nothing of the bench: it finds the agent in /run.
func (i *Image) initrd(ctx context.Context) ([]byte, error) {
	t := vm.NewTree()
	if err := t.AddAgent(ctx, agentPath); err != nil {
		return nil, err
	}
	for name, file := range map[string]string{"/init": "scripts/init", agentUnit: "scripts/agent.service"} {
		b, err := fs.ReadFile(scripts, file)
		if err != nil {
			return nil, err
		}
		mode := uint32(0o644)
		if name == "/init" {
			mode = 0o755
		}
		t.Write(name, mode, b)
	}
	t.Link(agentWant, "../bench-agent.service")
	modules, err := filepath.Glob(filepath.Join(i.dir, "modules", "*.ko"))
	if err != nil {
		return nil, err
	}
	for _, m := range modules {
		b, err := os.ReadFile(m)
		if err != nil {
			return nil, err
		}
		t.Write("/modules/"+filepath.Base(m), 0o644, b)
	}
	return t.Archive()
}
