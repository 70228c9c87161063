package binary

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
)

// SkewVariable names the environment variable by whose value, in seconds, the clock of a command from [BuildSkewed] differs from
// the machine's.
const SkewVariable = "CLOCK_SKEW_SECONDS"

// BuildSkewed is Build for a command whose clock may be set wrong: its time.Now differs from the machine's by [SkewVariable],
// for its whole life. Timers and monotonic readings are not changed. Go reads the clock without a system call, so nothing put
// before the process could do that; instead one function of the standard library is built differently. The first build of a
// machine takes a minute or two, because nearly every package depends on that function.
func BuildSkewed(ctx context.Context, dir, importPath string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("build %s with a clock of its own: go env GOROOT: %w", importPath, err)
	}
	original := filepath.Join(string(bytes.TrimSpace(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const reading = "\tsec, nsec, mono := runtimeNow()\n"
	now := []byte("\nfunc Now() Time {\n" + reading)
	if bytes.Count(source, now) != 1 {
		return "", fmt.Errorf("build %s with a clock of its own: this Go's time.Now does not begin as expected: see %s", importPath, original)
	}
	source = bytes.Replace(source, now, append(now, "\tsec += skew\n"...), 1)
	source = append(source, `
var skew = func() (seconds int64) {
	text, _ := syscall.Getenv("`+SkewVariable+`")
	sign := int64(1)
	for i, c := range []byte(text) {
		if i == 0 && c == '-' {
			sign = -1
			continue
		}
		seconds = 10*seconds + int64(c-'0')
	}
	return sign * seconds
}()
`...)
	source = bytes.Replace(source, []byte("\nimport (\n"), []byte("\nimport (\n\t\"syscall\"\n"), 1)
	skewed, overlay := filepath.Join(dir, "skewed_time.go"), filepath.Join(dir, "skewed_time.json")
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {original: skewed}})
	if err != nil {
		return "", err
	}
	for file, text := range map[string][]byte{skewed: source, overlay: replace} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return "", err
		}
	}
	return build(ctx, filepath.Join(dir, path.Base(importPath)+"-skewed"), importPath, "-overlay", overlay)
}
