package responses

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"assistant/internal/openai"
)

// Limits of a page of items.
const (
	defaultPage = 20
	maxPage     = 100
)

// itemList is a page of items.
type itemList struct {
	Object  string `json:"object"` // list
	Data    []item `json:"data"`
	FirstID string `json:"first_id"` // "" if there are none
	LastID  string `json:"last_id"`
	HasMore bool   `json:"has_more"`
}

// InputItems answers GET /v1/responses/ID/input_items: a page of the items that the request of that response held, those of the
// responses before it not among them. query is the request's: limit is of 1 to 100, 20 by default; order is asc, or desc by default,
// which is the last one first; after is the id of the item after which the page begins. An error with status 400 names one of these.
func (s *Store) InputItems(owner, id string, query url.Values) ([]byte, error) {
	limit := defaultPage
	if query.Has("limit") {
		n, err := strconv.Atoi(query.Get("limit"))
		if err != nil || n < 1 || n > maxPage {
			return nil, openai.InvalidRequest("limit", fmt.Sprintf(`"limit" must be a whole number from 1 to %d`, maxPage))
		}
		limit = n
	}
	order := query.Get("order")
	switch order {
	case "", "asc", "desc":
	default:
		return nil, openai.InvalidRequest("order", `"order" must be asc or desc`)
	}
	items, err := s.inputOf(owner, id)
	if err != nil {
		return nil, err
	}
	if order != "asc" {
		slices.Reverse(items)
	}
	if after := query.Get("after"); after != "" {
		at := slices.IndexFunc(items, func(it item) bool { return it.ID == after })
		if at < 0 {
			return nil, &openai.Error{
				Status: http.StatusBadRequest, Type: openai.TypeInvalidRequest, Param: "after", Message: "Item with id '" + after + "' not found.",
			}
		}
		items = items[at+1:]
	}
	page := itemList{Object: "list", Data: items[:min(limit, len(items))], HasMore: len(items) > limit}
	if n := len(page.Data); n > 0 {
		page.FirstID, page.LastID = page.Data[0].ID, page.Data[n-1].ID
	}
	return openai.Marshal(&page), nil
}

// inputOf returns a copy of the items of a response's input.
func (s *Store) inputOf(owner, id string) ([]item, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.find(owner, id)
	if e == nil {
		return nil, notFound(id)
	}
	return append([]item{}, e.input...), nil
}
