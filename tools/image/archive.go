package main

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
)

// imageName is where releases are published, and what the chart asks for.
const imageName = "ghcr.io/tapwire/shadowcat-cluster"

// WriteArchive writes an index with all it names as an OCI layout in a tar archive: what skopeo and podman call oci-archive, and
// what `docker load` and `ctr images import` read.
func WriteArchive(path string, index v1.ImageIndex, release Release) error {
	folder, err := os.MkdirTemp(filepath.Dir(path), "layout-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder) //nolint:errcheck // what is left of it is in bin, which make clean removes
	written, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	// Engines disagree about which annotation names an image.
	err = written.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": tag(release.Version),
		"io.containerd.image.name":          imageName + ":" + tag(release.Version),
	}))
	if err != nil {
		return err
	}
	return writeTar(path, folder, release.Time)
}

// tag makes of a version what an image may be tagged with.
func tag(version string) string {
	return regexp.MustCompile(`[^\w.-]`).ReplaceAllString(version, "-")
}

func writeTar(path, folder string, modified time.Time) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() {
		if closed := file.Close(); err == nil {
			err = closed
		}
	}()
	archive := tar.NewWriter(file)
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := archive.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: filepath.ToSlash(name), Size: int64(len(content)), Mode: int64(mode(false)), ModTime: modified,
		}); err != nil {
			return err
		}
		_, err = archive.Write(content)
		return err
	})
	if err != nil {
		return err
	}
	return archive.Close()
}

// report tells what was written: the digest names the same image wherever it is built from the same commit.
func report(out io.Writer, archive string, index v1.ImageIndex) error {
	digest, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n  %s\n", archive, digest)
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, descriptor := range manifest.Manifests {
		image, err := index.Image(descriptor.Digest)
		if err != nil {
			return err
		}
		content, err := image.Manifest()
		if err != nil {
			return err
		}
		size := int64(0)
		for _, layer := range content.Layers {
			size += layer.Size
		}
		fmt.Fprintf(out, "  %-12s %s %5.1f MB compressed\n", descriptor.Platform, descriptor.Digest, float64(size)/1e6)
	}
	return nil
}
