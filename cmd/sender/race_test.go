// SPDX-License-Identifier: GPL-2.0-only

//go:build race

package main

func init() { underRace = true }
