package keys

import (
	"fmt"
	"os"
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
