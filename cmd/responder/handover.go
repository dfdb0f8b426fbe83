// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"

	"golang.org/x/sys/unix"

	"netsysrq/cmd/responder/internal/config"
	"netsysrq/cmd/responder/internal/host"
	"netsysrq/cmd/responder/internal/runner"
	"netsysrq/nfq"
)

// handOver opens what only root may open and gives it to the service manager,
// which keeps it for a daemon that never was root: the unit runs it before.
func (c *command) handOver(args []string) error {
	if _, err := c.parse(newFlags("hand-over"), args, 0); err != nil {
		return err
	}
	cfg, err := config.Load(c.config)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range []struct {
		name, path string
		flags      int
	}{
		{host.TriggerFile, cfg.Trigger, runner.TriggerFlags},
		{host.KmsgFile, cfg.Kmsg, unix.O_RDONLY},
		{host.LogFile, cfg.Kmsg, unix.O_RDONLY},
		{host.StatisticsFile, nfq.StatisticsPath, unix.O_RDONLY},
	} {
		fd, err := host.Inherited{}.Open(f.name, f.path, f.flags)
		if err == nil {
			err = host.HandOver(f.name, fd)
			unix.Close(fd)
		}
		errs = append(errs, err)
	}
	// What is kept of the daemon before has the port still.
	if err := host.TakeBack(host.Answer4, host.Answer6); err != nil {
		return errors.Join(append(errs, err)...)
	}
	fd4, fd6, err := host.BindAnswers(cfg.Port)
	errs = append(errs, err)
	for name, fd := range map[string]int{host.Answer4: fd4, host.Answer6: fd6} {
		if fd >= 0 && err == nil {
			errs = append(errs, host.HandOver(name, fd))
		}
	}
	return errors.Join(errs...)
}
