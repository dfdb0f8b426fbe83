// SPDX-License-Identifier: GPL-2.0-only

package doctest

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentsAreSound: mandoc and the shells find nothing wrong.
func TestDocumentsAreSound(t *testing.T) {
	pages, err := filepath.Glob("../../deploy/man/*.[1-9]")
	if err != nil || len(pages) < 4 {
		t.Fatalf("%v, %v: want 4 pages and more", pages, err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			if out := Output(t, "mandoc", "-Tlint", "-Wwarning", page); out != "" {
				t.Error(out)
			}
		})
	}
	for _, shell := range Shells {
		files, err := filepath.Glob("../../deploy/completions/" + shell + "/*")
		if err != nil || len(files) != 2 {
			t.Fatalf("%v, %v: want 2 files", files, err)
		}
		for _, file := range files {
			t.Run(shell+"/"+filepath.Base(file), func(t *testing.T) {
				if out := Output(t, shell, "-n", file); out != "" {
					t.Error(out)
				}
			})
		}
	}
}

// TestManualOfTheProtocol: the page has the constants of the document.
func TestManualOfTheProtocol(t *testing.T) {
	page := Read(t, "../../deploy/man/netsysrq-protocol.7")
	_, document, _ := strings.Cut(Read(t, "../../auth/PROTOCOL.md"), "### Constants")
	document, _, _ = strings.Cut(document, "\n## ")
	rows := regexp.MustCompile(`(?m)^\| ([A-Z_]+) \| ([^ |(]+( m?s)?)`).FindAllStringSubmatch(document, -1)
	if len(rows) < 15 {
		t.Fatalf("constants not found: %v", rows)
	}
	for _, r := range rows {
		// Sizes of the parts are in the layouts.
		if r[1] != "HEADER_SIZE" && r[1] != "BODY_SIZE" && !strings.Contains(page, ".It "+r[1]+" Ta "+r[2]+" Ta ") {
			t.Errorf("the page does not say that %s is %s", r[1], r[2])
		}
	}
	for _, c := range regexp.MustCompile(`(?m)^\.It ([A-Z_]+) Ta `).FindAllStringSubmatch(page, -1) {
		if !strings.Contains(document, "\n| "+c[1]+" | ") {
			t.Errorf("the document has no constant %s", c[1])
		}
	}
}
