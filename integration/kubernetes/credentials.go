package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// credentials makes the key that tokens of service accounts are signed with, whose file it returns, and the file of the users that
// the API server knows. They are worth nothing outside: nobody else reaches the server.
func (c *cluster) credentials() (key string, err error) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	key = filepath.Join(c.work, "service-accounts.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)})
	if err := os.WriteFile(key, text, 0o600); err != nil {
		return "", err
	}
	users := []string{"admin,admin,1,system:masters", "deployer,deployer,2", "system:kube-proxy,system:kube-proxy,3"}
	for i, n := range nodeNames {
		users = append(users, fmt.Sprintf("%s,%s,%d,system:nodes", n.user(), n.user(), 4+i))
	}
	return key, os.WriteFile(c.tokensFile(), []byte(strings.Join(users, "\n")), 0o600)
}

func (c *cluster) tokensFile() string { return filepath.Join(c.work, "tokens.csv") }

// kubeconfig writes how a user reaches the API, and returns the file.
func (c *cluster) kubeconfig(user string) (string, error) {
	path := filepath.Join(c.work, "kubeconfig-"+strings.ReplaceAll(user, ":", "-"))
	return path, c.write(path, "kubeconfig.yaml", map[string]string{"User": user, "Namespace": namespace})
}
