package keys

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// Append adds an entry to the file, which is made if it is not there (mode 0600). What then would be no good is not written.
func Append(file, entry string) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	if len(data) > 0 {
		entry = "\n" + entry
	}
	if _, err := parse(file, append(data, entry...)); err != nil {
		return fmt.Errorf("with the new key it would be: %w", err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.WriteString(entry); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Create makes the file with one key of that name, and returns the key.
func Create(file, name string) (key string, err error) {
	key, sum := New()
	return key, Append(file, Entry(name, sum, nil))
}

// Entry is what the file has of a key: its name, its SHA-256, and the models it may use; nil = all.
func Entry(name, sum string, models []string) string {
	entry := "[[keys]]\nname   = " + quote(name) + "\nsha256 = " + quote(sum) + "\n"
	if len(models) > 0 {
		quoted := make([]string, len(models))
		for i, m := range models {
			quoted[i] = quote(m)
		}
		entry += "models = [" + strings.Join(quoted, ", ") + "]\n"
	}
	return entry
}

// quote makes a string of TOML, which JSON's are.
func quote(s string) string {
	b, _ := json.Marshal(s) // a string can be
	return string(b)
}
