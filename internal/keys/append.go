package keys

import (
	"bytes"
	"fmt"
	"os"

	"github.com/pelletier/go-toml/v2"
)

// Append adds an entry to the file, which is made if it is not there (mode 0600). What then would be no good is not written.
func Append(file string, entry Entry) error {
	data, err := os.ReadFile(file)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	added := entry.TOML()
	if len(data) > 0 {
		added = append([]byte("\n"), added...)
	}
	if _, err := parse(file, append(data, added...), NewUses()); err != nil {
		return fmt.Errorf("with the new key it would be: %w", err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := f.Write(added); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Create adds an entry with a new key to the file, which is made if it is not there, and returns the key.
func Create(file string, entry Entry) (key string, err error) {
	key, entry.SHA256 = New()
	return key, Append(file, entry)
}

// TOML is what the file has of the key.
func (r Entry) TOML() []byte {
	var b bytes.Buffer
	_ = toml.NewEncoder(&b).Encode(rawFile{Keys: []Entry{r}}) // strings, numbers and a time can be
	return b.Bytes()
}
