// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"

	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/hint"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/keyring"
	"netsysrq/kmod-fallback/kmod"
)

func (c *command) keys(ctx context.Context, args []string) error {
	name, args, err := c.subcommand("keys", args, "add", "list", "remove")
	if err != nil {
		return err
	}
	switch name {
	case "add":
		return c.keysAdd(ctx, args)
	case "list":
		return c.keysList(args)
	}
	return c.keysRemove(ctx, args)
}

func (c *command) keysAdd(ctx context.Context, args []string) error {
	flags := newFlags("keys add")
	file := flags.StringP("file", "f", "-", "")
	allow := flags.StringP("allow", "a", "", "")
	noRestart := flags.Bool("no-restart", false, "")
	args, err := c.parse(flags, args, 1)
	if err != nil {
		return err
	}
	a := keyring.Addition{Now: time.Now().UTC().Truncate(time.Second)}
	if len(args) == 1 {
		a.Operator = args[0]
	}
	if flags.Changed("allow") {
		a.Allow, err = auth.ParseKeySet(*allow)
		if err == nil && a.Allow == 0 {
			err = errors.New("no keys")
		}
		if err != nil {
			return usagef("--allow %s: %w", *allow, err)
		}
	}
	cfg, id, err := c.keyConfig()
	if err != nil {
		return err
	}
	if a.MachineID, err = keyring.MachineID(cfg.MachineID); err != nil {
		return err
	}
	if a.Enrolment, err = c.readEnrolment(*file); err != nil {
		return err
	}
	k, err := keyring.Add(cfg.KeysDir, a, id.GID)
	if err != nil {
		return asRoot(err)
	}
	fmt.Fprintf(c.stdout, "%s may use %v on this host (%s), with key %v\n", k.Operator, k.Allow, k.Host, k.Key.ID)
	if c.rulesLeadPast(ctx) {
		// An armed module that no packet reaches would silence the daemon too.
		fmt.Fprintln(c.stderr, "netsysrqd: the firewall rules lead past the kernel module, which is not told of the key")
	} else {
		var loaded bool
		loaded, err = tellModule("the key is here, but not in the kernel module", func(m *kmod.Client) error {
			return m.InstallKey(&k.Key, k.Allow)
		})
		if loaded && err == nil {
			fmt.Fprintln(c.stdout, "the kernel module obeys it from now on")
		}
	}
	return errors.Join(err, c.keysChanged(ctx, cfg, *noRestart, "does not know this key"))
}

// keyConfig reads what commands on keys need of the configuration.
func (c *command) keyConfig() (*config.Config, host.Identity, error) {
	cfg, err := config.Load(c.config)
	if err != nil {
		return nil, host.Identity{}, err
	}
	id, err := host.Lookup(cfg.User)
	return cfg, id, err
}

// maxLine is far more than an enrolment line has.
const maxLine = 4096

// readEnrolment reads one line from a file or, for "-", from standard input.
func (c *command) readEnrolment(path string) (*auth.Enrolment, error) {
	in := c.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, hint.Add(fmt.Errorf("enrolment: %w", err),
				"the operator makes the line with: netsysrq enroll HOST; without --file it is read from standard input")
		}
		defer f.Close()
		in = f
	} else if isTerminal(in) {
		fmt.Fprintln(c.stderr, "Paste the line that \"netsysrq enroll HOST\" printed, then Enter. It is secret.")
	}
	line, err := readLine(in)
	if err != nil {
		return nil, fmt.Errorf("enrolment: %w", err)
	}
	e, err := auth.ParseEnrolment(line)
	if err != nil {
		return nil, hint.Add(fmt.Errorf("enrolment: %w", err),
			"it is one line of seven words: netsysrq-enrol-1 OPERATOR HOST ...; copy all of it")
	}
	return e, nil
}

// readLine reads up to the first line feed or the end; a terminal has no end.
// One byte at a time, so that what follows is left to others.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < maxLine {
		n, err := r.Read(b)
		if n == 1 {
			if b[0] == '\n' && strings.TrimSpace(string(line)) != "" {
				return string(line), nil
			}
			line = append(line, b[0])
		}
		if errors.Is(err, io.EOF) {
			return string(line), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("the line is longer than %d bytes", maxLine)
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// listedKey is a key in the output of keys list --json.
type listedKey struct {
	Operator string `json:"operator"`
	KeyID    string `json:"key_id,omitempty"`
	Host     string `json:"host,omitempty"`
	Allow    string `json:"allow,omitempty"`
	Added    string `json:"added,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

func (c *command) keysList(args []string) error {
	flags := newFlags("keys list")
	asJSON := flags.Bool("json", false, "")
	if _, err := c.parse(flags, args, 0); err != nil {
		return err
	}
	cfg, id, err := c.keyConfig()
	if err != nil {
		return err
	}
	machine, err := keyring.MachineID(cfg.MachineID)
	if err != nil {
		return err
	}
	entries, err := keyring.List(cfg.KeysDir, machine, id.GID)
	if err != nil {
		return asRoot(err)
	}
	list := []listedKey{}
	for _, e := range entries {
		k := e.Key
		l := listedKey{Operator: k.Operator, Host: k.Host, Allow: k.Allow.String()}
		if k.Key.ID != (auth.KeyID{}) {
			l.KeyID = k.Key.ID.String()
		}
		if !k.Added.IsZero() {
			l.Added = k.Added.UTC().Format(time.RFC3339)
		}
		if e.Problem != nil {
			l.Problem = e.Problem.Error()
		}
		list = append(list, l)
	}
	if *asJSON {
		return c.printJSON(struct {
			V    int         `json:"v"`
			Keys []listedKey `json:"keys"`
		}{1, list})
	}
	if len(list) == 0 {
		fmt.Fprintln(c.stderr, "no keys in "+cfg.KeysDir)
		return nil
	}
	w := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "OPERATOR\tKEY ID\tHOST\tALLOWED\tADDED\tPROBLEM")
	for _, l := range list {
		day, _, _ := strings.Cut(l.Added, "T")
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.Operator, orDash(l.KeyID), orDash(l.Host), orDash(l.Allow), orDash(day), orDash(l.Problem))
	}
	return w.Flush()
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (c *command) keysRemove(ctx context.Context, args []string) error {
	flags := newFlags("keys remove")
	noRestart := flags.Bool("no-restart", false, "")
	args, err := c.parse(flags, args, 1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return usagef("keys remove: say whose key, or which by its id")
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	k, err := keyring.Remove(cfg.KeysDir, args[0])
	if err != nil {
		return asRoot(err)
	}
	fmt.Fprintf(c.stdout, "removed %s\n", k.Path)
	daemon := "still obeys this key"
	loaded, err := tellModule("the file is gone, but the kernel module still obeys the key", func(m *kmod.Client) error {
		if k.Key.ID == (auth.KeyID{}) {
			return errors.New("neither the file nor its name said which key it is")
		}
		err := m.RemoveKey(k.Key.ID)
		if errors.Is(err, kmod.ErrUnknownKey) {
			return nil
		}
		if err == nil {
			daemon = "still holds this key" // beside an armed module it acts on none
		}
		return err
	})
	if loaded && err == nil {
		fmt.Fprintln(c.stdout, "the kernel module does not obey it any more")
	}
	return errors.Join(err, c.keysChanged(ctx, cfg, *noRestart, daemon))
}

// asRoot adds a hint to what only root may do.
func asRoot(err error) error {
	if errors.Is(err, fs.ErrPermission) && os.Geteuid() != 0 {
		return hint.Add(err, "run it as root")
	}
	return err
}

func (c *command) printJSON(v any) error {
	enc := json.NewEncoder(c.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
