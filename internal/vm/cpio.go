// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"fmt"
)

// File types of a cpio entry, as in a mode of stat(2).
const (
	typeDir    = 0o040000
	typeFile   = 0o100000
	typeLink   = 0o120000
	typeDevice = 0o020000 // a character device
)

// cpio writes an archive in the "newc" format, which the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst): for each file a
// header of 8-digit hexadecimal numbers, the name, and the content, each padded
// to four bytes.
type cpio struct {
	bytes.Buffer
	inode uint32
}

// add appends one entry. Parents come before what is in them.
func (c *cpio) add(name string, mode uint32, major, minor uint32, content []byte) {
	c.inode++
	links := uint32(1)
	if mode&typeDir == typeDir {
		links = 2
	}
	c.WriteString("070701")
	for _, field := range []uint32{
		c.inode, mode, 0, 0, links, 0, uint32(len(content)),
		0, 0, major, minor, uint32(len(name) + 1), 0,
	} {
		fmt.Fprintf(c, "%08x", field)
	}
	c.WriteString(name)
	c.WriteByte(0)
	c.pad()
	c.Write(content)
	c.pad()
}

// end finishes the archive.
func (c *cpio) end() { c.add("TRAILER!!!", 0, 0, 0, nil) }

func (c *cpio) pad() {
	for c.Len()%4 != 0 {
		c.WriteByte(0)
	}
}
