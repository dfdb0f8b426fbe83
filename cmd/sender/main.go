// SPDX-License-Identifier: GPL-2.0-only

// Command sender, installed as netsysrq, asks hosts to perform Magic SysRq
// steps by sealed UDP packets. Its help text says the rest. Called by the name
// fence_netsysrq it is an agent for cluster managers: package fence.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"netsysrq/cmd/sender/internal/fence"
	"netsysrq/internal/exchange"
	"netsysrq/internal/version"
)

// Exit codes, listed in the help text.
const (
	exitOK       = 0
	exitError    = 1
	exitUsage    = 2
	exitRefused  = 3
	exitRebooted = 4
	exitUnknown  = 5
	exitKey      = 6
	exitUnproved = 7
	exitNoDaemon = 8
	exitNotBack  = 9
)

// severity orders the exit codes, the worst last: of many hosts, the worst one
// is the command's.
var severity = []int{exitOK, exitRebooted, exitUnproved, exitError, exitKey, exitRefused, exitNoDaemon, exitUnknown, exitNotBack}

func worse(a, b int) int {
	if slices.Index(severity, b) > slices.Index(severity, a) {
		return b
	}
	return a
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	start := func(args []string) int { return run(ctx, args, system()) }
	if filepath.Base(os.Args[0]) == fence.Name {
		start = func(args []string) int { return fence.Run(ctx, args, fenceWorld()) }
	}
	code := start(os.Args[1:])
	stop()
	os.Exit(code)
}

// world is what the command touches outside itself.
type world struct {
	stdin  *os.File
	stdout io.Writer
	stderr *os.File
	getenv func(string) string
	clock  exchange.Clock

	// The network, if not the real one.
	dial    exchange.Dial
	sockets func(ipv6 bool) (exchange.Socket, error)
}

func system() world {
	return world{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, getenv: os.Getenv, clock: exchange.SystemClock}
}

// run is the command, and returns its exit code.
func run(ctx context.Context, args []string, w world) int {
	o, err := parse(args)
	if err != nil {
		return w.fail(err)
	}
	switch {
	case o.help:
		return w.help(o)
	case o.version:
		code, _ := printVersion(ctx, w, o)
		return code
	}
	code, err := o.command.run(ctx, w, o)
	if err != nil {
		return w.fail(err)
	}
	return code
}

func printVersion(_ context.Context, w world, _ *options) (int, error) {
	fmt.Fprintf(w.stdout, "netsysrq %s, protocol version 1\n", version.String())
	return exitOK, nil
}

// failure is an error that ends the command with a code, and what the operator
// can do about it.
type failure struct {
	code int
	err  error
	hint string
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// asFailure gives every other error the code of an error of this side.
func asFailure(err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	return &failure{code: exitError, err: err}
}

// fail tells an error and returns its exit code.
func (w world) fail(err error) int {
	f := asFailure(err)
	fmt.Fprintf(w.stderr, "netsysrq: %v\n", err)
	if f.hint != "" {
		fmt.Fprintf(w.stderr, "hint: %s\n", f.hint)
	}
	return f.code
}

// note tells something that does not end the command.
func (w world) note(format string, args ...any) {
	fmt.Fprintf(w.stderr, "netsysrq: "+format+"\n", args...)
}
