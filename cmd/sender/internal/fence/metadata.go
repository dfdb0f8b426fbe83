// SPDX-License-Identifier: GPL-2.0-only

package fence

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The metadata, as the schema of the fence agents has it.
type (
	resourceAgent struct {
		XMLName    xml.Name        `xml:"resource-agent"`
		Name       string          `xml:"name,attr"`
		Short      string          `xml:"shortdesc,attr"`
		Long       string          `xml:"longdesc"`
		Vendor     string          `xml:"vendor-url"`
		Parameters []xmlParameter  `xml:"parameters>parameter"`
		Actions    []xmlNamedEmpty `xml:"actions>action"`
	}
	xmlParameter struct {
		Name       string `xml:"name,attr"`
		Unique     int    `xml:"unique,attr"`
		Required   int    `xml:"required,attr"`
		Deprecated int    `xml:"deprecated,attr,omitempty"`
		Obsoletes  string `xml:"obsoletes,attr,omitempty"`
		Getopt     struct {
			Mixed string `xml:"mixed,attr"`
		} `xml:"getopt"`
		Content struct {
			Type    string `xml:"type,attr"`
			Default string `xml:"default,attr,omitempty"`
		} `xml:"content"`
		Short struct {
			Lang string `xml:"lang,attr"`
			Text string `xml:",chardata"`
		} `xml:"shortdesc"`
	}
	xmlNamedEmpty struct {
		Name string `xml:"name,attr"`
	}
)

// actions are what a manager may ask for. There is no on: nothing of a machine
// that is off listens, and a manager that was told of it would count on it.
var actions = []string{"reboot", "off", "status", "monitor", "list", "validate-all", "metadata"}

const shortDescription = "Fence agent for netsysrq: network magic SysRq"

const longDescription = `fence_netsysrq resets a node through its own kernel, by one sealed UDP packet, with netsysrq. It needs no hardware, and works while every process of the node hangs, if its kernel module is armed. It cannot reach a node that has lost its power, its network or its kernel: use it as a level before another device, or where nothing else is there.

reboot succeeds only on proof: a sealed reply that the steps were accepted, neither rehearsed nor as a dry run, and after it a sealed status with another boot id. So it ends when the node has booted as far as its kernel module, which may take minutes. Set pcmk_reboot_timeout to more than that: the default of 60 seconds is often too short. A node that does not answer is never called fenced.

off succeeds only if silence_as_off is set. A machine that is off cannot say so: that it accepted, and was silent afterwards, is weaker proof than another boot id. A node whose network fails right after it has accepted, and that then hangs before it powers off, looks the same and may still write to its disks. Without silence_as_off, off fails and nothing is sent. Cluster managers should be told to use reboot. on is not possible.

status succeeds if the node answers, and fails otherwise; it never says off. monitor and validate-all look at the configuration of this side alone and ask no node: a device that failed with its node would not be there to fence it.

The master key is read from a file that only root can read. list has the nodes of the list of hosts.`

func printMetadata(w io.Writer) error {
	doc := resourceAgent{Name: Name, Short: shortDescription, Long: longDescription, Vendor: "https://www.kernel.org/doc/html/latest/admin-guide/sysrq.html"}
	for _, p := range parameters {
		if p.hidden {
			continue
		}
		x := xmlParameter{Name: p.name, Obsoletes: p.replaces}
		if p.replaced {
			x.Deprecated = 1
		}
		x.Getopt.Mixed = p.usage()
		x.Content.Type, x.Content.Default = p.kind, p.standard
		x.Short.Lang, x.Short.Text = "en", p.text
		doc.Parameters = append(doc.Parameters, x)
	}
	for _, a := range actions {
		doc.Actions = append(doc.Actions, xmlNamedEmpty{a})
	}
	b, err := xml.MarshalIndent(doc, "", "\t")
	if err != nil {
		return err
	}
	// Line feeds are as good as their numbers here, and people read this too.
	_, err = fmt.Fprintf(w, "%s%s\n", xml.Header, bytes.ReplaceAll(b, []byte("&#xA;"), []byte("\n")))
	return err
}

// usage is how the parameter is written on a command line; one that is not for
// the command line, as the parameter that replaces it is.
func (p *parameter) usage() string {
	if p.replaced {
		for _, q := range parameters {
			if q.replaces == p.name {
				return q.usage()
			}
		}
	}
	var s string
	if p.short != "" {
		s = "-" + p.short + ", "
	}
	s += "--" + p.flag
	if p.kind != "boolean" {
		s += "=[" + p.kind + "]"
	}
	return s
}

func printHelp(w io.Writer) {
	fmt.Fprintf(w, "%s: %s\n\n%s resets a node through its own kernel, for cluster managers. Without options on the\n"+
		"command line it reads lines name=value from standard input. %s(8) says the rest.\n\n", Name, shortDescription, Name, Name)
	for _, p := range parameters {
		if p.flag == "" {
			continue
		}
		fmt.Fprintf(w, "   %-34s %s", p.usage(), strings.ReplaceAll(p.text, "\n", " "))
		if p.standard != "" {
			fmt.Fprintf(w, " (default %s)", p.standard)
		}
		fmt.Fprintln(w)
	}
}
