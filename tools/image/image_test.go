package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"debug/elf"
	"encoding/hex"
	"errors"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

const (
	testVersion = "v1.2.3-test"
	testCommit  = "0123456789abcdef0123456789abcdef01234567"
	testEpoch   = "1700000000"
	testCreated = "2023-11-14T22:13:20Z"
)

// source is the root of the product's module.
const source = "../.."

// target is what TestMain builds, as `make image` does; it is for all tests to read.
var target string

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	folder, err := os.MkdirTemp("", "image-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(folder) //nolint:errcheck // of a test
	// The user that programs are tested as must get at them.
	if err := errors.Join(os.Chmod(folder, 0o755), os.Setenv("SOURCE_DATE_EPOCH", testEpoch)); err != nil {
		panic(err)
	}
	target = folder
	if err := build(context.Background(), target); err != nil {
		panic(err)
	}
	return m.Run()
}

func build(ctx context.Context, folder string) error {
	return run(ctx, []string{"-source", source, "-target", folder, "-version", testVersion, "-commit", testCommit}, io.Discard)
}

func TestSameInputGivesTheSameBytes(t *testing.T) {
	t.Parallel()

	again := t.TempDir()
	if err := build(t.Context(), again); err != nil {
		t.Fatal(err)
	}
	first, second := digest(t, filepath.Join(target, "image.tar")), digest(t, filepath.Join(again, "image.tar"))
	if first != second {
		t.Errorf("two builds of the same source: %s and %s", first, second)
	}
}

func TestNoPathOfTheMachineIsInTheProgram(t *testing.T) {
	t.Parallel()

	folder, err := filepath.Abs(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, architecture := range architectures {
		program, err := os.ReadFile(filepath.Join(target, architecture, programPath))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(program, []byte(folder+"/")) {
			t.Errorf("%s: the program names %s, so another checkout would give another digest", architecture, folder)
		}
	}
}

func TestImageIsReadyForRestrictedPods(t *testing.T) {
	t.Parallel()

	for architecture, image := range images(t, filepath.Join(target, "image.tar")) {
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != architecture || config.OS != "linux" || config.Config.User != "65532:65532" {
			t.Errorf("%s: config is for %s/%s, user %q", architecture, config.OS, config.Architecture, config.Config.User)
		}
		if !config.Created.Equal(mustTime(t, testCreated)) {
			t.Errorf("%s: created %s, want SOURCE_DATE_EPOCH, %s", architecture, config.Created, testCreated)
		}
		for name, want := range map[string]string{
			"org.opencontainers.image.version": testVersion, "org.opencontainers.image.revision": testCommit, "org.opencontainers.image.created": testCreated,
		} {
			if got := config.Config.Labels[name]; got != want {
				t.Errorf("%s: label %s is %q, want %q", architecture, name, got, want)
			}
		}
		// No shell, no package manager: nothing but the program, and what it reads.
		want := []string{
			"etc/", "etc/group", "etc/passwd", "etc/ssl/", "etc/ssl/certs/", "etc/ssl/certs/ca-certificates.crt",
			"usr/", "usr/bin/", "usr/bin/shadowcat-cluster",
		}
		files := contents(t, image)
		if got := slices.Sorted(maps.Keys(files)); !slices.Equal(got, want) {
			t.Errorf("%s holds %q, want %q", architecture, got, want)
		}
		for name, file := range files {
			executable := strings.HasSuffix(name, "/") || name == programPath
			if file.owner != [2]int{0, 0} || file.mode != int64(mode(executable)) {
				t.Errorf("%s: %s belongs to %v with mode %o, want root's and %o", architecture, name, file.owner, file.mode, mode(executable))
			}
		}
	}
}

func TestProgramIsStatic(t *testing.T) {
	t.Parallel()

	machines := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}
	for architecture, image := range images(t, filepath.Join(target, "image.tar")) {
		program, err := elf.NewFile(bytes.NewReader(contents(t, image)[programPath].content))
		if err != nil {
			t.Fatal(err)
		}
		if program.Machine != machines[architecture] {
			t.Errorf("the program of %s is for %s", architecture, program.Machine)
		}
		if slices.ContainsFunc(program.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
			t.Errorf("the program of %s needs a dynamic linker, which the image does not have", architecture)
		}
	}
}

func TestCertificatesAreReadByGo(t *testing.T) {
	t.Parallel()

	for architecture, image := range images(t, filepath.Join(target, "image.tar")) {
		// The first of the places where crypto/x509 looks on Linux.
		text := contents(t, image)["etc/ssl/certs/ca-certificates.crt"].content
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			t.Errorf("%s: no certificate can be read", architecture)
		}
		if count := bytes.Count(text, []byte("BEGIN CERTIFICATE")); count < 80 {
			t.Errorf("%s: %d certificates; Mozilla trusts over a hundred", architecture, count)
		}
	}
}

func TestDockerfileGivesTheSameImage(t *testing.T) {
	t.Parallel()

	if _, err := exec.LookPath("buildah"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs buildah and root: Debian's package is installed by `make image-test`, as root")
	}
	byArchive := images(t, filepath.Join(target, "image.tar"))
	for _, architecture := range architectures {
		byDockerfile := buildah(t, architecture)
		got, want := configOf(t, byDockerfile), configOf(t, byArchive[architecture])
		if got.User != want.User || got.WorkingDir != want.WorkingDir || !maps.Equal(got.ExposedPorts, want.ExposedPorts) ||
			!slices.Equal(got.Entrypoint, want.Entrypoint) || !slices.Equal(got.Cmd, want.Cmd) || !slices.Equal(withoutPath(got.Env), want.Env) {
			t.Errorf("%s: the Dockerfile's config is\n%+v, the archive's\n%+v", architecture, got, want)
		}
		delete(got.Labels, "io.buildah.version") // Its own signature.
		if !maps.Equal(got.Labels, want.Labels) {
			t.Errorf("%s: the Dockerfile's labels are\n%v, the archive's\n%v", architecture, got.Labels, want.Labels)
		}
		if !maps.EqualFunc(contents(t, byDockerfile), contents(t, byArchive[architecture]), entry.equal) {
			t.Errorf("%s: the Dockerfile's files differ from the archive's", architecture)
		}
	}
}

// withoutPath leaves out what engines add: a PATH for the shell that the image does not have.
func withoutPath(environment []string) []string {
	return slices.DeleteFunc(environment, func(variable string) bool { return strings.HasPrefix(variable, "PATH=") })
}

// buildah builds the Dockerfile for one architecture, in folders of its own.
func buildah(t *testing.T, architecture string) v1.Image {
	t.Helper()

	state, tree, result := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "result")
	// What `make image` puts into bin/image, and no more than the Dockerfile may see.
	if err := os.CopyFS(filepath.Join(tree, "bin", "image"), os.DirFS(target)); err != nil {
		t.Fatal(err)
	}
	global := []string{"--root", filepath.Join(state, "root"), "--runroot", filepath.Join(state, "run"), "--storage-driver", "vfs"}
	for _, args := range [][]string{
		{
			"bud", "--isolation", "chroot", "--timestamp", testEpoch, "--platform", "linux/" + architecture,
			"--ignorefile", source + "/.dockerignore", "--build-arg", "VERSION=" + testVersion, "--build-arg", "COMMIT=" + testCommit,
			"--build-arg", "CREATED=" + testCreated, "--file", source + "/Dockerfile", "--tag", "localhost/result", tree,
		},
		{"push", "localhost/result", "oci:" + result + ":1"},
	} {
		if output, err := exec.CommandContext(t.Context(), "buildah", append(global, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("buildah %s: %v\n%s", args[0], err, output)
		}
	}
	index, err := layout.ImageIndexFromPath(result)
	if err != nil {
		t.Fatal(err)
	}
	return only(t, index)
}

// entry is one file or folder of an image.
type entry struct {
	owner   [2]int
	mode    int64
	content []byte
}

func (e entry) equal(other entry) bool {
	return e.owner == other.owner && e.mode == other.mode && bytes.Equal(e.content, other.content)
}

// contents returns an image's files by their names; those of folders end in a slash.
func contents(t *testing.T, image v1.Image) map[string]entry {
	t.Helper()

	entries := map[string]entry{}
	flat := mutate.Extract(image)
	defer flat.Close()
	for archive := tar.NewReader(flat); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(header.Name, "./")
		if header.Typeflag == tar.TypeDir {
			name = strings.TrimSuffix(name, "/") + "/"
		}
		entries[name] = entry{owner: [2]int{header.Uid, header.Gid}, mode: header.Mode & 0o7777, content: content}
	}
}

// images returns what an OCI archive holds, by architecture.
func images(t *testing.T, archive string) map[string]v1.Image {
	t.Helper()

	folder := t.TempDir()
	if output, err := exec.CommandContext(t.Context(), "tar", "-xf", archive, "-C", folder).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, output)
	}
	outer, err := layout.ImageIndexFromPath(folder)
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := outer.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("the archive names %d indexes (%v), want 1", len(manifest.Manifests), err)
	}
	index, err := outer.ImageIndex(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	if manifest, err = index.IndexManifest(); err != nil {
		t.Fatal(err)
	}
	found := map[string]v1.Image{}
	for _, descriptor := range manifest.Manifests {
		if found[descriptor.Platform.Architecture], err = index.Image(descriptor.Digest); err != nil {
			t.Fatal(err)
		}
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, architectures) {
		t.Fatalf("the archive is for %q, want %q", got, architectures)
	}
	return found
}

func only(t *testing.T, index v1.ImageIndex) v1.Image {
	t.Helper()

	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("the layout names %d images (%v), want 1", len(manifest.Manifests), err)
	}
	image, err := index.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func configOf(t *testing.T, image v1.Image) v1.Config {
	t.Helper()

	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.Config
}

func digest(t *testing.T, path string) string {
	t.Helper()

	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
