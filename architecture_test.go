// Package shadowcatcluster_test holds the rules about the module as a whole:
// which package may import which, and that each one introduces itself.
package shadowcatcluster_test

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/tapwire/shadowcat-cluster"

// mayImport is the import direction, top to bottom: a top-level folder, and the
// top-level folders of this module that its packages may import beside their own.
// Tests are free: they may look down on a package from above.
//
// A new folder gets a line here, as low as it can be.
var mayImport = map[string][]string{
	"integration": {anything},

	"cmd":        {"admin", "proxy", "sweeper", "redisstore", "cluster", "lua", "mcp"},
	"admin":      {"redisstore", "cluster", "lua", "mcp"},
	"proxy":      {"redisstore", "cluster", "lua", "mcp"},
	"sweeper":    {"redisstore", "cluster", "lua", "mcp"},
	"redisstore": {"cluster", "lua", "mcp"},

	"cluster": {},
	"lua":     {},
	"mcp":     {},
}

// anything marks folders that stand outside the product and look at all of it.
const anything = "*"

// goFile is what these tests need to know of one file that is not a test.
type goFile struct {
	path        string // slash-separated, relative to the module's root
	packageName string
	comment     string   // the text above the package clause; "" without one
	imports     []string // paths inside this module, relative to its root
}

// folder returns the file's package by the path of its folder.
func (f goFile) folder() string { return path.Dir(f.path) }

// topFolder returns the first element of a path inside the module.
func topFolder(packagePath string) string {
	top, _, _ := strings.Cut(packagePath, "/")
	return top
}

func TestImportsPointDownOnly(t *testing.T) {
	t.Parallel()

	for _, file := range moduleFiles(t) {
		importer := topFolder(file.folder())
		allowed, known := mayImport[importer]
		if !known {
			t.Errorf("%s: the folder %q has no line in mayImport: add one that says what it may import.", file.path, importer)
			continue
		}
		for _, imported := range file.imports {
			top := topFolder(imported)
			if top == importer || slices.Contains(allowed, anything) || slices.Contains(allowed, top) {
				continue
			}
			t.Errorf("%s imports %s, but %s may import %s: move the code down, or let %s declare an interface for what it needs.",
				file.path, imported, importer, list(allowed), importer)
		}
	}
}

func TestEachPackageHasOnePackageComment(t *testing.T) {
	t.Parallel()

	byFolder := map[string][]goFile{}
	for _, file := range moduleFiles(t) {
		byFolder[file.folder()] = append(byFolder[file.folder()], file)
	}
	for folder, files := range byFolder {
		var commented []string
		for _, file := range files {
			if file.comment == "" {
				continue
			}
			commented = append(commented, file.path)
			if openings := commentOpenings(file); !slices.ContainsFunc(openings, opens(file.comment)) {
				t.Errorf("%s: the package comment must open with %q, so that documentation lists read well.",
					file.path, strings.Join(openings, " or "))
			}
		}
		switch len(commented) {
		case 1:
		case 0:
			t.Errorf("%s has no package comment: say above the package clause of its main file, or of doc.go, what the package is for.", folder)
		default:
			t.Errorf("%s has %d package comments (%s): keep one, and separate the others from their package clause by a blank line.",
				folder, len(commented), strings.Join(commented, ", "))
		}
	}
}

// commentOpenings are the ways Go's documentation opens: with a package's name, or
// with a command's, which may start the sentence itself.
func commentOpenings(file goFile) []string {
	if file.packageName != "main" {
		return []string{"Package " + file.packageName}
	}
	command := path.Base(file.folder())
	return []string{"Command " + command, strings.ToUpper(command[:1]) + command[1:]}
}

// opens reports whether a comment opens with the given words.
func opens(comment string) func(opening string) bool {
	return func(opening string) bool { return strings.HasPrefix(comment, opening+" ") }
}

// list names folders in a sentence.
func list(folders []string) string {
	return cmp.Or(strings.Join(folders, ", "), "nothing of this module")
}

// moduleFiles parses every Go file of this module that is not a test, whatever
// system it is built for. Nested modules and testdata are not part of it.
func moduleFiles(t *testing.T) []goFile {
	t.Helper()

	var files []goFile
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return skipFolder(name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parseFile(name)
		if err != nil {
			return err
		}
		files = append(files, file)
		return nil
	})
	if err != nil {
		t.Fatalf("read the module's files: %v", err)
	}
	if len(files) == 0 {
		t.Fatal("found no Go file: this test must run in the module's root folder, as go test does.")
	}
	return files
}

// skipFolder answers filepath.SkipDir for the folders that go build ./... skips.
func skipFolder(name string) error {
	if name == "." {
		return nil
	}
	base := filepath.Base(name)
	if base == "testdata" || base == "vendor" || base == "node_modules" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func parseFile(name string) (goFile, error) {
	syntax, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return goFile{}, err
	}
	return goFile{
		path:        filepath.ToSlash(name),
		packageName: syntax.Name.Name,
		comment:     syntax.Doc.Text(),
		imports:     ownImports(syntax),
	}, nil
}

// ownImports returns the imports that belong to this module.
func ownImports(syntax *ast.File) []string {
	var own []string
	for _, spec := range syntax.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			continue // The parser accepts quoted paths only.
		}
		if inside, ok := strings.CutPrefix(imported, modulePath+"/"); ok {
			own = append(own, inside)
		}
	}
	return own
}
