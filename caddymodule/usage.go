package caddymodule

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"assistant/internal/keys"
	"assistant/internal/openai"
	"assistant/internal/usage"
)

// usageFile is where in the state directory it is kept what was used.
const usageFile = "usage.json"

func init() { routes["/v1/usage"] = get((*Handler).serveUsage) }

// meter counts what the request has used, for its key.
func (x *exchange) meter(prompt, completion int, told bool) {
	if !told {
		prompt, completion = x.guess()
	}
	var who usage.Who
	if k := x.key; k != nil {
		who = usage.Who{Key: k.Name, Owner: k.Owner, Team: k.Team}
		k.Took(time.Now(), prompt+completion)
	}
	x.h.rt.usage.Add(who, x.model.Name, prompt, completion)
}

// guess is about how many tokens a stream took that ended before it said so, or whose engine never does: else who leaves before the last
// event would use no budget. It has an event a token, and English has a token in four bytes.
func (x *exchange) guess() (prompt, completion int) {
	const bytesPerToken, unknownContext = 4, 8192
	if !x.req.Stream || x.ep.raw || x.tap.Events() == 0 {
		return 0, 0
	}
	context := first(x.model.CtxSize, unknownContext) // pictures are long, in bytes
	return min(int(x.body.Len()/bytesPerToken), context), x.tap.Events()
}

// usageAnswer is what GET /v1/usage answers.
type usageAnswer struct {
	Object  string     `json:"object"` // "list"
	From    string     `json:"from"`
	To      string     `json:"to"`
	GroupBy []string   `json:"group_by"`
	Data    []usageRow `json:"data"`
	Month   *monthRow  `json:"month,omitempty"` // of a key with a bound a month
}

// usageRow is what was used; of what is not told apart, the field is left out.
type usageRow struct {
	Day   *string `json:"day,omitempty"` // or 2026-09 of a whole month
	Key   *string `json:"key,omitempty"` // "" = of requests without one
	Owner *string `json:"owner,omitempty"`
	Team  *string `json:"team,omitempty"`
	Model *string `json:"model,omitempty"`
	usage.Counts
	Total int64 `json:"total_tokens"`
}

type monthRow struct {
	Tokens int64 `json:"tokens"`
	Limit  int64 `json:"limit"`
}

// serveUsage tells what was used. A key sees its own, and who needs none, on this machine, sees all.
func (h *Handler) serveUsage(w http.ResponseWriter, r *http.Request, key *keys.Key) {
	q, err := readUsageQuery(r, time.Now().UTC())
	if err != nil {
		err.WriteTo(w)
		return
	}
	answer := usageAnswer{Object: "list", From: q.from, To: q.to, GroupBy: q.groupBy, Data: []usageRow{}}
	var of *string
	switch {
	case key != nil:
		of = &key.Name
		if key.TokensPerMonth > 0 {
			answer.Month = &monthRow{Tokens: h.rt.usage.Month(key.Name), Limit: key.TokensPerMonth}
		}
	case !fromHere(r): // the server is insecure
		of = new(string)
	}
	for _, row := range usage.Sum(h.rt.usage.Rows(), q.from, q.to, of, q.by) {
		told := func(is bool, s *string) *string {
			if is {
				return s
			}
			return nil
		}
		answer.Data = append(answer.Data, usageRow{
			Day: told(q.by.Day, &row.Day), Key: told(q.by.Key, &row.Key), Owner: told(q.by.Owner, &row.Owner),
			Team: told(q.by.Team, &row.Team), Model: told(q.by.Model, &row.Model), Counts: row.Counts, Total: row.Tokens(),
		})
	}
	writeJSON(w, http.StatusOK, openai.Marshal(answer))
}

// usageQuery is what GET /v1/usage is asked.
type usageQuery struct {
	from, to string // days, both included
	groupBy  []string
	by       usage.By
}

// readUsageQuery reads it. Left out, it is this month's, by model.
func readUsageQuery(r *http.Request, now time.Time) (q usageQuery, bad *openai.Error) {
	values := r.URL.Query()
	today := now.Format(time.DateOnly)
	q.from, q.to = first(values.Get("from"), now.Format("2006-01")+"-01"), first(values.Get("to"), today)
	for _, day := range [][2]string{{"from", q.from}, {"to", q.to}} {
		if _, err := time.Parse(time.DateOnly, day[1]); err != nil {
			return q, openai.InvalidRequest(day[0], fmt.Sprintf("%s %q: give a day such as %s", day[0], day[1], today))
		}
	}
	if q.from > q.to {
		return q, openai.InvalidRequest("from", fmt.Sprintf("from %s is after to %s", q.from, q.to))
	}
	for name := range strings.SplitSeq(first(values.Get("group_by"), "model"), ",") {
		switch name {
		case "day":
			q.by.Day = true
		case "key":
			q.by.Key = true
		case "owner":
			q.by.Owner = true
		case "team":
			q.by.Team = true
		case "model":
			q.by.Model = true
		default:
			return q, openai.InvalidRequest("group_by", fmt.Sprintf("group_by %q: choose of day, key, owner, team and model, with commas", name))
		}
		q.groupBy = append(q.groupBy, name)
	}
	return q, nil
}
