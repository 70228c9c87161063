package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
)

// The images that the nodes have; nothing is ever pulled.
const (
	imageVersion  = "executed"
	pauseImage    = "localhost/pause:1"
	upstreamImage = "localhost/upstreamserver:1"
	redisName     = "localhost/redis"
	redisImage    = redisName + ":1"
)

// Import paths of what is in them beside the product.
const (
	pauseProgram    = "github.com/tapwire/shadowcat-cluster/integration/kubernetes/pause"
	upstreamProgram = "github.com/tapwire/shadowcat-cluster/integration/upstreamserver"
)

// binariesFile holds the folder of the binaries, for the inner program.
const binariesFile = "binaries"

// prepare makes what needs the network or the compiler: the binaries, and the images as archives in the work folder.
func prepare(ctx context.Context, out io.Writer, work string, fake bool) error {
	folder, err := buildBinaries(ctx, out, fake)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(work, binariesFile), []byte(folder), 0o644); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(work, "log"), 0o755); err != nil || fake {
		return err
	}
	images := filepath.Join(work, "images")
	if err := os.Mkdir(images, 0o755); err != nil {
		return err
	}
	// The image that users get, packed by what packs it for them.
	pack := exec.CommandContext(ctx, "nice", "go", "run", ".", "-source", "../..", "-target", images, "-version", imageVersion)
	pack.Dir = "tools/image"
	if output, err := pack.CombinedOutput(); err != nil {
		return fmt.Errorf("make the image: %w\n%s", err, output)
	}
	for name, program := range map[string]string{pauseImage: pauseProgram, upstreamImage: upstreamProgram} {
		if err := programImage(ctx, images, name, program); err != nil {
			return err
		}
	}
	return makeRedisImage(ctx, images)
}

// programImage compiles a program of this module and makes it the only file of an image.
func programImage(ctx context.Context, images, name, program string) error {
	executable := filepath.Join(images, path.Base(program))
	command := exec.CommandContext(ctx, "nice", "go", "build", "-o", executable, program)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", program, err, output)
	}
	inside := "/" + path.Base(program)
	return writeImage(executable+".tar", name, []string{inside}, map[string]string{inside: executable})
}

// makeRedisImage makes an image of the machine's redis-server and of the libraries that it needs.
func makeRedisImage(ctx context.Context, images string) error {
	server, err := exec.LookPath("redis-server")
	if err != nil {
		return err
	}
	listing, err := exec.CommandContext(ctx, "ldd", server).Output()
	if err != nil {
		return fmt.Errorf("ldd %s: %w", server, err)
	}
	files := map[string]string{"/usr/bin/redis-server": server}
	for _, match := range regexp.MustCompile(`(/\S+) \(0x`).FindAllStringSubmatch(string(listing), -1) {
		files[match[1]] = match[1]
	}
	return writeImage(filepath.Join(images, "redis.tar"), redisImage, []string{"/usr/bin/redis-server"}, files)
}

// writeImage writes an image of one layer as `docker save` would: files maps where they are in the image to where they are here.
func writeImage(archivePath, name string, entrypoint []string, files map[string]string) error {
	layer, err := makeLayer(files)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(layer)
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": entrypoint, "Env": []string{"PATH=/usr/bin"}, "User": "65532:65532"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{"sha256:" + hex.EncodeToString(sum[:])}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{"Config": "config.json", "RepoTags": []string{name}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, file := range []struct {
		name    string
		content []byte
	}{{"layer.tar", layer}, {"config.json", config}, {"manifest.json", manifest}} {
		if err := addFile(writer, file.name, 0o644, file.content); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	return os.WriteFile(archivePath, archive.Bytes(), 0o644)
}

func makeLayer(files map[string]string) ([]byte, error) {
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	for inside, here := range files {
		content, err := os.ReadFile(here)
		if err != nil {
			return nil, err
		}
		if err := addFile(writer, strings.TrimPrefix(inside, "/"), 0o755, content); err != nil {
			return nil, err
		}
	}
	err := writer.Close()
	return layer.Bytes(), err
}

func addFile(archive *tar.Writer, name string, mode int64, content []byte) error {
	if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := archive.Write(content)
	return err
}
