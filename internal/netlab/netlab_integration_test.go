// SPDX-License-Identifier: GPL-2.0-only

//go:build integration

package netlab_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"netsysrq/internal/netlab"
)

func TestPacketsCrossTheLab(t *testing.T) {
	lab := netlab.New(t)
	for _, address := range []string{netlab.ServerIPv4, netlab.ServerIPv6} {
		var server, client net.Conn
		err := lab.Do(lab.Server, func() (err error) {
			server, err = net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(address), Port: 4000})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		err = lab.Do(lab.Client, func() (err error) {
			client, err = net.Dial("udp", net.JoinHostPort(address, "4000"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		if _, err := client.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		server.SetReadDeadline(time.Now().Add(5 * time.Second))
		buf := make([]byte, 16)
		n, err := server.Read(buf)
		if err != nil || string(buf[:n]) != "ping" {
			t.Fatalf("%s: read %q: %v", address, buf[:n], err)
		}
	}
}

func TestCleanupRemovesEverything(t *testing.T) {
	var lab *netlab.Lab
	cmdDone := make(chan error, 1)
	t.Run("inner", func(t *testing.T) {
		lab = netlab.New(t)
		cmd := lab.Command(context.Background(), lab.Server, "sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { cmdDone <- cmd.Wait() }()
		// Until ip has entered the namespace, the process is not inside it.
		time.Sleep(200 * time.Millisecond)
	})
	if lab == nil {
		t.Skip("no lab could be made here")
	}
	select {
	case <-cmdDone:
	case <-time.After(5 * time.Second):
		t.Error("a process inside the lab outlived it")
	}
	for _, ns := range []string{lab.Client, lab.Server} {
		if _, err := os.Stat("/run/netns/" + ns); !os.IsNotExist(err) {
			t.Errorf("namespace %s is still there", ns)
		}
	}
}
