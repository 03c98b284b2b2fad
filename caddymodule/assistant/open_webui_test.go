//go:build clients

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"assistant/internal/realtest"
)

// openWebUI is Open WebUI's own server, asked as the page that it serves asks it.
type openWebUI struct {
	t     *testing.T
	url   string
	token string
}

// startOpenWebUI starts it with nobody to log in and nothing to fetch, in what its makers call slim: without the libraries that read
// documents and run models of their own.
func startOpenWebUI(t *testing.T, s *server) *openWebUI {
	t.Helper()
	dir, port := t.TempDir(), freePort(t)
	ui := &openWebUI{t: t, url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	cmd := exec.Command(realtest.Need(t, "ASSISTANT_TEST_PYTHON_OPEN_WEBUI"), "-c", "from open_webui import app; app()",
		"serve", "--host", "127.0.0.1", "--port", fmt.Sprint(port))
	cmd.Dir = dir
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "SSL_CERT_FILE=" + s.ca(),
		"DATA_DIR=" + dir, "STATIC_DIR=" + filepath.Join(dir, "static"), "WEBUI_SECRET_KEY=of-a-test", "WEBUI_AUTH=False",
		"USE_SLIM_DOCKER=true", "OFFLINE_MODE=true", "ENABLE_VERSION_UPDATE_CHECK=False", "ENABLE_OLLAMA_API=False", "SCARF_NO_ANALYTICS=true", "DO_NOT_TRACK=true",
	}
	path := filepath.Join(dir, "log")
	log, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(bound, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		kill.Stop()
		if t.Failed() {
			said, _ := os.ReadFile(path)
			t.Logf("Open WebUI's log:\n%s", said)
		}
	})
	waitFor(t, "Open WebUI", func() bool {
		res, err := http.Get(ui.url + "/health")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	var user struct{ Token string }
	ui.call(http.MethodPost, "/api/v1/auths/signin", map[string]string{"email": "", "password": ""}, &user)
	ui.token = user.Token
	return ui
}

// open asks, and returns the answer, which must be a 200.
func (ui *openWebUI) open(method, path string, in any) *http.Response {
	ui.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			ui.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ui.t.Context(), method, ui.url+path, body)
	if err != nil {
		ui.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+ui.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		ui.t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(res.Body)
		res.Body.Close()
		ui.t.Fatalf("%s %s: status %d: %s", method, path, res.StatusCode, said)
	}
	return res
}

// call asks and decodes the answer.
func (ui *openWebUI) call(method, path string, in, out any) {
	ui.t.Helper()
	res := ui.open(method, path, in)
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(out); err != nil {
		ui.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// connect makes the router its only connection, under Admin Settings, Connections.
func (ui *openWebUI) connect(s *server, provider string) {
	ui.t.Helper()
	var out any
	ui.call(http.MethodPost, "/openai/verify", map[string]any{"url": s.https + "/v1", "key": "unused", "config": map[string]any{}}, &out)
	ui.call(http.MethodPost, "/openai/config/update", map[string]any{
		"ENABLE_OPENAI_API": true, "OPENAI_API_BASE_URLS": []string{s.https + "/v1"}, "OPENAI_API_KEYS": []string{"unused"},
		"OPENAI_API_CONFIGS": map[string]any{"0": map[string]any{"enable": true, "provider": provider, "connection_type": "external"}},
	}, &out)
}

// listed is the model in the list that users choose from, and whether that shows it as loaded; nil = it does not tell.
func (ui *openWebUI) listed(model string) (found bool, loaded *bool) {
	ui.t.Helper()
	var list struct {
		Data []struct {
			ID     string
			Loaded *bool
		}
	}
	ui.call(http.MethodGet, "/api/models?refresh=true", nil, &list)
	for _, m := range list.Data {
		if m.ID == model {
			return true, m.Loaded
		}
	}
	return false, nil
}

// state is what its page for managing models makes of the catalog.
func (ui *openWebUI) state(model string) string {
	ui.t.Helper()
	type entry struct {
		ID, Key string
		Status  struct{ Value string }
		Loaded  []struct{ ID string } `json:"loaded_instances"`
	}
	var catalog struct{ Data, Models []entry }
	ui.call(http.MethodGet, "/openai/models/0/catalog", nil, &catalog)
	for _, m := range append(catalog.Data, catalog.Models...) {
		switch {
		case m.ID != model && m.Key != model:
		case m.Status.Value != "":
			return m.Status.Value
		case len(m.Loaded) > 0:
			return "loaded"
		default:
			return "unloaded"
		}
	}
	return "not there"
}

// chat streams an answer and returns its text and how it ended.
func (ui *openWebUI) chat(model string) (text, finish string, ended bool) {
	ui.t.Helper()
	res := ui.open(http.MethodPost, "/api/chat/completions", map[string]any{
		"model": model, "stream": true, "max_tokens": 24, "temperature": 0, "seed": 1,
		"messages": []any{
			map[string]string{"role": "system", "content": "You are a helpful assistant."},
			map[string]string{"role": "user", "content": "What is the capital of France?"},
		},
	})
	defer res.Body.Close()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		switch {
		case !isData:
			continue
		case data == "[DONE]":
			ended = true
			continue
		}
		var event struct {
			Choices []struct {
				Delta  struct{ Content string }
				Finish string `json:"finish_reason"`
			}
		}
		if err := json.Unmarshal([]byte(data), &event); err != nil {
			ui.t.Fatalf("an event %q: %v", data, err)
		}
		for _, c := range event.Choices {
			text, finish = text+c.Delta.Content, finish+c.Finish
		}
	}
	return text, finish, ended
}

func (ui *openWebUI) manages(operation, model string) {
	ui.t.Helper()
	var out any
	ui.call(http.MethodPost, "/openai/models/0/"+operation, map[string]string{"model": model}, &out)
}

// chats has it chat, which must work whether the model is loaded or not.
func (ui *openWebUI) chats(model string) {
	ui.t.Helper()
	if text, finish, ended := ui.chat(model); !strings.Contains(text, "Paris") || finish != "length" && finish != "stop" || !ended {
		ui.t.Errorf("the answer was %q, finish_reason %q, ended %v", text, finish, ended)
	}
}

// downloads has it bring a model, which must be listed then and chat.
func (ui *openWebUI) downloads(model string) {
	ui.t.Helper()
	var out any
	ui.call(http.MethodPost, "/openai/models/0/download", map[string]string{"model": model}, &out)
	waitFor(ui.t, "the model that was downloaded", func() bool { found, _ := ui.listed(model); return found })
	ui.chats(model)
}

// pulls has it bring a model as Ollama does.
func (ui *openWebUI) pulls(s *server, model string) {
	ui.t.Helper()
	var out any
	ui.call(http.MethodPost, "/ollama/config/update", map[string]any{
		"ENABLE_OLLAMA_API": true, "OLLAMA_BASE_URLS": []string{s.https}, "OLLAMA_API_CONFIGS": map[string]any{},
	}, &out)
	res := ui.open(http.MethodPost, "/ollama/api/pull/0", map[string]string{"model": model})
	defer res.Body.Close()
	said, err := io.ReadAll(res.Body)
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(said)), `{"status":"success"}`) {
		ui.t.Errorf("%v: %s", err, said)
	}
	var list struct{ Models []struct{ Model string } }
	ui.call(http.MethodGet, "/ollama/api/tags/0", nil, &list)
	for _, m := range list.Models {
		if m.Model == model {
			return
		}
	}
	ui.t.Errorf("%s is not in its list: %+v", model, list)
}

// TestOpenWebUI lists, loads, chats with and unloads a model of the real engine by either of the dialects that Open WebUI manages models by.
func TestOpenWebUI(t *testing.T) {
	const model = "smollm2"
	hub, repo := publishSmollm2(t)
	s := startServer(t, map[string]string{model + ".toml": smollm2(t, "")}, "HF_ENDPOINT="+hub.URL)
	ui := startOpenWebUI(t, s)
	for _, c := range []struct {
		provider string
		shows    bool // its list shows what is loaded
	}{{"llama.cpp", true}, {"lmstudio", false}} {
		t.Run(c.provider, func(t *testing.T) {
			ui := &openWebUI{t, ui.url, ui.token}
			ui.connect(s, c.provider)
			is := func(want bool) bool {
				found, loaded := ui.listed(model)
				if !found {
					t.Fatalf("%s is not listed", model)
				}
				state := ui.state(model)
				return (state == "loaded") == want && (!c.shows && loaded == nil || c.shows && loaded != nil && *loaded == want)
			}
			if !is(false) || len(s.instances()) != 0 {
				t.Errorf("before it is loaded: state %q, %d instances", ui.state(model), len(s.instances()))
			}
			ui.manages("load", model)
			waitFor(t, "it to be shown as loaded", func() bool { return is(true) })
			pid := s.the(model).PID
			ui.chats(model)
			if now := s.the(model).PID; now != pid {
				t.Error("the chat was answered by another instance than the one that was loaded")
			}
			ui.manages("unload", model)
			waitFor(t, "it to be shown as unloaded", func() bool { return is(false) && len(s.instances()) == 0 })
			ui.chats(model) // from cold
			ui.manages("unload", model)
			waitFor(t, "it to be gone", func() bool { return len(s.instances()) == 0 })
			ui.downloads(repo + ":Q4_K_M")
			if c.shows { // the other has no way to delete
				ui.call(http.MethodDelete, "/openai/models/0?model="+url.QueryEscape(repo+":Q4_K_M"), nil, new(any))
				waitFor(t, "the removed model's engine to be gone", func() bool { return len(s.instances()) == 0 })
			}
		})
	}
	t.Run("ollama", func(t *testing.T) {
		(&openWebUI{t, ui.url, ui.token}).pulls(s, "hf.co/"+repo+":Q4_K_M")
	})
}
