package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noArgs refuses arguments.
func noArgs(command *cobra.Command, args []string) error {
	if err := noSwitchValue(command, args); err != nil {
		return err
	}
	return cobra.NoArgs(command, args)
}

// noSwitchValue refuses arguments that are probably the value of a switch: one that follows its flag as a word of its own is none, so
// that --recover false would switch it on.
func noSwitchValue(command *cobra.Command, args []string) error {
	i := slices.IndexFunc(args, func(arg string) bool {
		return slices.Contains([]string{"true", "false", "on", "off", "yes", "no", "0", "1"}, strings.ToLower(arg))
	})
	if i < 0 {
		return nil
	}
	var switches []string
	command.Flags().Visit(func(f *pflag.Flag) {
		if f.NoOptDefVal != "" {
			switches = append(switches, "--"+f.Name+"=false")
		}
	})
	if len(switches) == 0 {
		return nil
	}
	return fmt.Errorf("argument %q: the value of a switch comes after =, as in %s", args[i], strings.Join(switches, " or "))
}
