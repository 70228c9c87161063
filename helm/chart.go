// Package helm holds the chart's tests: every scenario of shadowcat-cluster/ci is rendered as Helm does it, each object is
// decoded into its API type, and rules are checked that a cluster would only show in a bad moment.
//
// It is a module of its own, so that what the product needs has nothing of Kubernetes in it.
package helm

// What the chart takes from the program, its schema, and its README.
//go:generate go run ./generate shadowcat-cluster
//go:generate go tool -modfile=tools/go.mod github.com/losisin/helm-values-schema-json/v2 --use-helm-docs --no-additional-properties --values shadowcat-cluster/values.yaml --output shadowcat-cluster/values.schema.json
//go:generate go tool -modfile=tools/go.mod helm-docs --chart-search-root . --sort-values-order file --log-level warning
