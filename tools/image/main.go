// Command image compiles Shadowcat Cluster for each platform and packs it into an OCI archive, without a container engine and
// without root. The same source, toolchain, version and SOURCE_DATE_EPOCH give the same bytes on every machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	release, source, target := Release{}, "", ""
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.StringVar(&source, "source", ".", "root folder of the product's module")
	flags.StringVar(&target, "target", "bin/image", "folder to write to: what goes into the image, as the Dockerfile copies it, and image.tar")
	flags.StringVar(&release.Version, "version", "dev", "what the program and the image's labels say")
	flags.StringVar(&release.Commit, "commit", "", "the commit that it is built from")
	if err := flags.Parse(args); err != nil {
		return err
	}
	var err error
	if release.Time, err = sourceDate(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	// The compiler runs in another folder.
	if target, err = filepath.Abs(target); err != nil {
		return err
	}

	roots, err := Stage(ctx, source, target, release)
	if err != nil {
		return err
	}
	index, err := NewIndex(roots, release)
	if err != nil {
		return err
	}
	archive := filepath.Join(target, "image.tar")
	if err := WriteArchive(archive, index, release); err != nil {
		return err
	}
	return report(out, archive, index)
}

// sourceDate reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/): seconds since 1970, by default 0.
// It becomes the time of each file and of the image.
func sourceDate(epoch string) (time.Time, error) {
	if epoch == "" {
		epoch = "0"
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil || seconds < 0 {
		return time.Time{}, errors.New("SOURCE_DATE_EPOCH=" + epoch + " is no number of seconds since 1970: give one, or unset it")
	}
	return time.Unix(seconds, 0).UTC(), nil
}
