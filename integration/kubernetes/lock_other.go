//go:build !unix

package main

import (
	"errors"
	"os"
)

func exclusive(*os.File) error { return errors.New("needs Linux") }
