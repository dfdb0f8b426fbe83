// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/sethvargo/go-diceware/diceware"

	"netsysrq/auth"
)

// keygen makes a master key: a file, or words to remember.
func keygen(_ context.Context, w world, o *options) (int, error) {
	if o.words {
		return exitOK, keygenWords(w, o)
	}
	label, err := operatorLabel(w, o)
	if err != nil {
		return 0, err
	}
	path, err := masterPath(w, o)
	if err != nil {
		return 0, err
	}
	if err := saveMaster(path, &operator{label, auth.NewMaster()}); err != nil {
		return 0, err
	}
	if !o.quiet {
		fmt.Fprintln(w.stdout, path)
		w.note("the master key of %s is in this file: keep a copy where no one else can read it", label)
		w.note("next, for each host: netsysrq enroll HOST%s", o.same())
	}
	return exitOK, nil
}

func keygenWords(w world, o *options) error {
	words, err := diceware.Generate(o.count) // from crypto/rand and the EFF's long list
	if err != nil {
		return fmt.Errorf("choose words: %w", err)
	}
	fmt.Fprintln(w.stdout, strings.Join(words, " "))
	if !o.quiet {
		w.note("nothing was saved: remember these words, they are not shown again")
		w.note("with --passphrase --operator LABEL they make your key on any machine; choose a label and keep to it")
	}
	return nil
}
