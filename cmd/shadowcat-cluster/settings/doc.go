// Package settings is the configuration of the shadowcat-cluster command: one table of settings, and everything that is
// derived from it. Flags, environment variables, YAML keys, help texts and docs/configuration.md all come from [Table], so a
// setting that is added there exists everywhere.
//
// A setting has one name. The name max_sessions is the flag --max-sessions, the environment variable
// SHADOWCAT_MAX_SESSIONS and the YAML key max_sessions; the nested name auth.mode is --auth-mode, SHADOWCAT_AUTH_MODE and
// the key mode under auth. A flag wins over the environment, the environment over the file, the file over the default.
//
// Nothing is ignored: names that do not exist, names that this version does not support yet, values that cannot be read and
// combinations that cannot work are all refused by [Load], together, each by the setting's name.
package settings

//go:generate go run ./generate ../../../docs/configuration.md
