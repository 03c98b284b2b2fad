package usage

// By tells what is told apart in sums.
type By struct{ Day, Key, Owner, Team, Model bool }

// Sum adds up the rows from one day to another, both included, of one key if that is not nil. What is not told apart is empty in
// the sums. A row of a whole month is of its first day; what is older than months is left out.
func Sum(rows []Row, from, to string, key *string, by By) []Row {
	var some []Row
	for _, r := range rows {
		if day := firstDay(r.Day); day < from || day > to || key != nil && r.Key != *key {
			continue
		}
		keep(&r.Day, by.Day)
		keep(&r.Key, by.Key)
		keep(&r.Owner, by.Owner)
		keep(&r.Team, by.Team)
		keep(&r.Model, by.Model)
		some = append(some, r)
	}
	return merge(some)
}

func firstDay(day string) string {
	if len(day) == len(monthForm) {
		return day + "-01"
	}
	return day
}

func keep(s *string, told bool) {
	if !told {
		*s = ""
	}
}
