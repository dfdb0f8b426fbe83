// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"netsysrq/auth"
	"netsysrq/internal/fleet/hosts"
)

// maxLine bounds a passphrase and an answer.
const maxLine = 4096

// askPassphrase asks on the terminal, whatever stdin is, without echo.
func askPassphrase(ctx context.Context, confirm bool) (string, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return "", keyError(fmt.Errorf("no terminal to ask for the passphrase: %w", err),
			"scripts give it with --passphrase-fd N")
	}
	defer tty.Close()
	first, err := readHidden(ctx, tty, "passphrase: ")
	if err != nil || !confirm {
		return first, err
	}
	second, err := readHidden(ctx, tty, "once more: ")
	if err == nil && strings.Join(strings.Fields(first), " ") != strings.Join(strings.Fields(second), " ") {
		err = keyError(errors.New("the two passphrases differ"), "")
	}
	return first, err
}

// readHidden reads a line without echo. The echo comes back also if ctx ends
// first, by ^C.
func readHidden(ctx context.Context, tty *os.File, prompt string) (string, error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", keyError(fmt.Errorf("ask for the passphrase: %w", err), "")
	}
	fmt.Fprint(tty, prompt)
	line, err := await(ctx, func() (string, error) {
		b, err := term.ReadPassword(fd)
		return string(b), err
	})
	if ctx.Err() != nil {
		term.Restore(fd, before)
	}
	fmt.Fprintln(tty)
	if err != nil {
		return "", keyError(fmt.Errorf("ask for the passphrase: %w", err), "")
	}
	return line, nil
}

// readPassphrase reads the line that a script gives.
func readPassphrase(ctx context.Context, fd int) (string, error) {
	if term.IsTerminal(fd) {
		return "", usageError(fmt.Errorf("file descriptor %d is a terminal, which would show the passphrase", fd),
			"--passphrase asks for it without showing it")
	}
	file := os.NewFile(uintptr(fd), "passphrase")
	line, err := await(ctx, func() (string, error) { return readLine(file) })
	if err != nil {
		return "", keyError(fmt.Errorf("read the passphrase from file descriptor %d: %w", fd, err),
			"for example --passphrase-fd 3 3<file")
	}
	return line, nil
}

// confirm has the operator type the name of a host whose machine is about to
// be stopped, or the number of many.
func confirm(ctx context.Context, s *session) error {
	w, o := s.w, s.o
	if o.yes || o.rehearse || !auth.Destructive(o.steps) {
		return nil
	}
	steps := listSteps(o.steps)
	if !term.IsTerminal(int(w.stdin.Fd())) {
		return usageError(fmt.Errorf("%s would stop the machine or end processes, and there is no terminal to confirm it on", steps),
			"add --yes if that is meant, or --rehearse to try everything but the act")
	}
	if s.many {
		at := ""
		if o.rolling > 0 {
			at = fmt.Sprintf(", at most %d at a time", o.rolling)
		}
		fmt.Fprintf(w.stderr, "%s stops the machine or ends processes, on %s%s:\n  %s\ntype the number of hosts to go on: ",
			steps, count(len(s.hosts)), at, listNames(s.hosts, 40))
	} else {
		fmt.Fprintf(w.stderr, "%s: %s stops the machine or ends processes.\ntype the host's name to go on: ", s.hosts[0].Name, steps)
	}
	line, err := await(ctx, func() (string, error) { return readLine(w.stdin) })
	if err != nil {
		fmt.Fprintln(w.stderr)
		return usageError(fmt.Errorf("not confirmed, nothing was sent: %w", err), "")
	}
	line = strings.TrimSpace(line)
	name, err := auth.NormalizeHost(line)
	if s.many && line != strconv.Itoa(len(s.hosts)) || !s.many && (err != nil || name != s.hosts[0].Name) {
		return usageError(errors.New("not confirmed, nothing was sent"), "")
	}
	return nil
}

func count(hosts int) string {
	if hosts == 1 {
		return "1 host"
	}
	return fmt.Sprintf("%d hosts", hosts)
}

// listNames lists the first few hosts, and how many more there are.
func listNames(list []*hosts.Host, most int) string {
	var names []string
	for _, h := range list[:min(most, len(list))] {
		names = append(names, h.Name)
	}
	if more := len(list) - most; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, " ")
}

// await lets ctx end a read that can't be ended; the process is about to exit.
func await(ctx context.Context, read func() (string, error)) (string, error) {
	type result struct {
		line string
		err  error
	}
	done := make(chan result, 1)
	go func() {
		line, err := read()
		done <- result{line, err}
	}()
	select {
	case r := <-done:
		return r.line, r.err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

// readLine reads up to a line feed or the end, and nothing beyond, since the
// rest may be for others.
func readLine(r io.Reader) (string, error) {
	var line []byte
	b := make([]byte, 1)
	for len(line) < maxLine {
		n, err := r.Read(b)
		switch {
		case n == 1 && b[0] == '\n', err == io.EOF && len(line) > 0:
			return string(line), nil
		case n == 1:
			line = append(line, b[0])
		case err == io.EOF:
			return "", io.ErrUnexpectedEOF
		case err != nil:
			return "", err
		}
	}
	return "", fmt.Errorf("the line is longer than %d bytes", maxLine)
}
