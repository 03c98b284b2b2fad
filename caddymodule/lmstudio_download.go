package caddymodule

import (
	"net/http"
	"path"
	"time"

	"assistant/internal/hub"
	"assistant/internal/keys"
	"assistant/internal/openai"
)

// What LM Studio's clients bring models by (https://lmstudio.ai/docs/developer/rest).
func init() {
	routes["/api/v1/models/download"] = post((*Handler).downloadForLMStudio)
	routes["/api/v1/models/download/status/"] = get((*Handler).serveLMStudioDownload)
}

// lmDownload is how a download stands, in LM Studio's words.
type lmDownload struct {
	Job       string     `json:"job_id"`
	Status    string     `json:"status"` // downloading, paused, completed or failed
	Total     int64      `json:"total_size_bytes,omitempty"`
	Done      int64      `json:"downloaded_bytes"`
	Speed     float64    `json:"bytes_per_second,omitempty"`
	Started   time.Time  `json:"started_at"`
	Completed *time.Time `json:"completed_at,omitempty"`
	Until     *time.Time `json:"estimated_completion,omitempty"`
	Error     string     `json:"error,omitempty"`
}

func lmDownloadOf(s hub.Status) lmDownload {
	d := lmDownload{Job: s.ID, Status: "downloading", Total: max(s.Total, 0), Done: s.Done, Speed: s.BytesPerSec, Started: s.Started, Error: s.Error}
	switch s.State {
	case hub.Resolving, hub.Downloading, hub.Verifying:
		if left := s.Remaining(); left > 0 {
			until := time.Now().Add(left)
			d.Until = &until
		}
	case hub.Completed:
		d.Status, d.Completed = "completed", &s.Ended
	case hub.Paused:
		d.Status = "paused"
	case hub.Failed, hub.Cancelled:
		d.Status = "failed"
	}
	return d
}

// downloadForLMStudio begins to bring a model, which is called as it was asked for, and does not wait for it.
func (h *Handler) downloadForLMStudio(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	if s, ok := h.toDownload(w, r, key); ok {
		writeJSON(w, http.StatusOK, openai.Marshal(lmDownloadOf(s)))
	}
}

func (h *Handler) serveLMStudioDownload(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	job := path.Base(r.URL.Path)
	if err := h.waitReady(r); err != nil {
		refuse(w, "", err)
		return
	}
	s, ok := h.rt.hub.Load().Get(job)
	if !ok || !h.rt.mayHear(key, s) {
		openai.NotFound("job_id", "there is no download "+job).WriteTo(w)
		return
	}
	writeJSON(w, http.StatusOK, openai.Marshal(lmDownloadOf(s)))
}
