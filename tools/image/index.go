package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Release says what an image is an image of.
type Release struct {
	// Version is what users call it.
	Version string
	// Commit is what it is built from; empty: not known.
	Commit string
	// Time is that of each file and of the image.
	Time time.Time
}

// labels are those of https://github.com/opencontainers/image-spec/blob/main/annotations.md; the Dockerfile sets the same.
func (r Release) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":         "Shadowcat Cluster",
		"org.opencontainers.image.description":   "Run more than one replica of an MCP proxy without losing a session",
		"org.opencontainers.image.source":        "https://github.com/tapwire/shadowcat-cluster",
		"org.opencontainers.image.documentation": "https://github.com/tapwire/shadowcat-cluster#readme",
		"org.opencontainers.image.licenses":      "Apache-2.0",
		"org.opencontainers.image.version":       r.Version,
		"org.opencontainers.image.revision":      r.Commit,
		"org.opencontainers.image.created":       r.Time.Format(time.RFC3339),
	}
}

// config is what a runtime is told. `serve` listens on all addresses, of no use to anybody else's namespace than the container's;
// who gives arguments of their own says where. Nothing is set in the environment, because it would win over a configuration file.
func (r Release) config() v1.Config {
	return v1.Config{
		User:         userID + ":" + userID,
		Entrypoint:   []string{"/" + programPath},
		Cmd:          []string{"serve", "--listen", ":8081", "--admin-listen", ":9081"},
		ExposedPorts: map[string]struct{}{"8081/tcp": {}, "9081/tcp": {}},
		WorkingDir:   "/",
		Labels:       r.labels(),
	}
}

// NewIndex makes the image: one for each architecture, and the index that names them.
func NewIndex(roots Roots, release Release) (v1.ImageIndex, error) {
	common, err := newLayer(roots.Common, release.Time)
	if err != nil {
		return nil, err
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range architectures {
		program, err := newLayer(roots.ByArchitecture[architecture], release.Time)
		if err != nil {
			return nil, err
		}
		image, err := newImage(architecture, release, common, program)
		if err != nil {
			return nil, err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}},
		})
	}
	annotated, _ := mutate.Annotations(index, release.labels()).(v1.ImageIndex)
	return annotated, nil
}

func newImage(architecture string, release Release, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	image, err := mutate.ConfigFile(image, &v1.ConfigFile{
		Architecture: architecture,
		OS:           "linux",
		Created:      v1.Time{Time: release.Time},
		Config:       release.config(),
		RootFS:       v1.RootFS{Type: "layers"},
	})
	if err != nil {
		return nil, err
	}
	for _, layer := range layers {
		image, err = mutate.Append(image, mutate.Addendum{
			Layer:     layer,
			History:   v1.History{Created: v1.Time{Time: release.Time}, CreatedBy: "make image"},
			MediaType: types.OCILayer,
		})
		if err != nil {
			return nil, err
		}
	}
	return image, nil
}

// newLayer packs a folder: in the order of names, all of it root's, as old as the release.
func newLayer(root string, modified time.Time) (v1.Layer, error) {
	var content bytes.Buffer
	archive := tar.NewWriter(&content)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		return addToLayer(archive, root, path, entry, modified)
	})
	if err != nil {
		return nil, err
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressionLevel(9))
}

func addToLayer(archive *tar.Writer, root, path string, entry fs.DirEntry, modified time.Time) error {
	name, err := filepath.Rel(root, path)
	if err != nil {
		return err
	}
	header := &tar.Header{Name: filepath.ToSlash(name), Mode: int64(mode(entry.IsDir())), ModTime: modified, Format: tar.FormatPAX}
	if entry.IsDir() {
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		return archive.WriteHeader(header)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if header.Name == programPath {
		header.Mode = int64(mode(true))
	}
	header.Typeflag, header.Size = tar.TypeReg, int64(len(content))
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = archive.Write(content)
	return err
}
