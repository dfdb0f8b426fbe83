// SPDX-License-Identifier: GPL-2.0-only

// Package typo finds the word that was meant where another was written.
package typo

import "strings"

// Hint asks whether one of the known words was meant, those that are nearest;
// it is empty if none is near.
func Hint(word string, known []string) string {
	var near []string
	least := 4 // a word that differs more is another one
	for _, k := range known {
		d := Distance(word, k)
		if d > least || d > len(k)*2/5 {
			continue
		}
		if d < least {
			least, near = d, nil
		}
		near = append(near, k)
	}
	if near == nil {
		return ""
	}
	return "did you mean " + strings.Join(near, " or ") + "?"
}

// Distance counts the letters to insert, remove or replace to get from a to b.
func Distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := corner
			if a[i] != b[j] {
				replaced++
			}
			corner = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
