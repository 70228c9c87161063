package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// architectures are those of Linux that the image is built for, by Go's names and the OCI's, which are the same.
var architectures = []string{"amd64", "arm64"}

// The folders below a target: what all architectures have in common changes rarely, so it is a layer of its own.
const commonFolder = "common"

// Where things are inside the image.
const (
	programPath      = "usr/bin/shadowcat-cluster"
	certificatesPath = "etc/ssl/certs/ca-certificates.crt"
)

// userID is the user and group that the program runs as: the number that distroless images call nonroot.
const userID = "65532"

// Roots are folders whose contents, one on top of the other, are the image's root file system.
type Roots struct {
	// Common is the same for all.
	Common string
	// ByArchitecture hold the program.
	ByArchitecture map[string]string
}

// Stage writes what goes into the image to folders below target: the Dockerfile copies from the same. What was there is replaced.
func Stage(ctx context.Context, source, target string, release Release) (Roots, error) {
	roots := Roots{Common: filepath.Join(target, commonFolder), ByArchitecture: map[string]string{}}
	if err := stageCommon(roots.Common); err != nil {
		return Roots{}, err
	}
	for _, architecture := range architectures {
		root := filepath.Join(target, architecture)
		if err := os.RemoveAll(root); err != nil {
			return Roots{}, err
		}
		if err := compile(ctx, source, filepath.Join(root, programPath), architecture, release); err != nil {
			return Roots{}, err
		}
		if err := settleModes(root); err != nil {
			return Roots{}, err
		}
		roots.ByArchitecture[architecture] = root
	}
	return roots, nil
}

func stageCommon(root string) error {
	certificates, err := certificates()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(root); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		certificatesPath: certificates,
		// Names for the numbers, for programs that look them up: an operator's `session terminate` says who it was.
		"etc/passwd": []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:" + userID + ":" + userID + ":nonroot:/:/sbin/nologin\n"),
		"etc/group":  []byte("root:x:0:\nnonroot:x:" + userID + ":\n"),
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return settleModes(root)
}

// certificates returns the authorities that Mozilla trusts, in PEM, as golang.org/x/crypto pins them: no package of the machine
// that builds is part of the input. Those that are trusted for old certificates only are left out: PEM cannot say so.
func certificates() ([]byte, error) {
	var text bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint != nil {
			continue
		}
		if err := pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}); err != nil {
			return nil, err
		}
	}
	if text.Len() == 0 {
		return nil, errors.New("golang.org/x/crypto/x509roots has no certificate: see tools/image/go.mod")
	}
	return text.Bytes(), nil
}

// compile builds the program so that nothing of this machine gets into it: no path, no version control, no flag that its user
// prefers.
func compile(ctx context.Context, source, executable, architecture string, release Release) error {
	command := exec.CommandContext(ctx, "go", "build", "-trimpath",
		"-ldflags", "-s -w -X main.version="+release.Version+" -X main.commit="+release.Commit,
		"-o", executable, "./cmd/shadowcat-cluster")
	command.Dir = source
	command.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+architecture,
		"GOAMD64=v1", "GOARM64=v8.0", "GOFLAGS=-buildvcs=false", "GOWORK=off")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("compile for %s: %w\n%s", architecture, err, output)
	}
	return nil
}

// settleModes makes what the umask of whoever builds has made of the modes plain again.
func settleModes(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chmod(path, mode(entry.IsDir() || filepath.Base(path) == filepath.Base(programPath)))
	})
}

// mode is that of a folder or program, or else of a file: everybody may read, nobody but root may write.
func mode(executable bool) fs.FileMode {
	if executable {
		return 0o755
	}
	return 0o644
}
