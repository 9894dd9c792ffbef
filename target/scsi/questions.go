package scsi

import "pmsapp/internal/reserve"

// question is one to another node that is out.
type question struct {
	lu       *LU
	changes  bool   // it may have an effect there
	reserves bool   // it is a RESERVE
	end      func() // gives it up; nil: not known yet
	lost     bool   // the session is over, and what it is granted is to be released
}

// asks notes a question to another node that is out, and asking how it is given up; asked is its end, and returns it.
func (x *Nexus) asks(q question) uint64 {
	x.out.Lock()
	defer x.out.Unlock()
	x.lastAsked++
	if x.questions == nil {
		x.questions = map[uint64]question{}
	}
	x.questions[x.lastAsked] = q
	return x.lastAsked
}

func (x *Nexus) asking(id uint64, end func()) {
	x.out.Lock()
	defer x.out.Unlock()
	if q, out := x.questions[id]; out {
		q.end = end
		x.questions[id] = q
	}
}

func (x *Nexus) asked(id uint64) question {
	x.out.Lock()
	defer x.out.Unlock()
	q := x.questions[id]
	delete(x.questions, id)
	return q
}

// cancelQuestions gives up what other nodes were asked. If the nexus is lost a RESERVE is not: it may have been begun, and whether it was
// granted has to be known.
func (x *Nexus) cancelQuestions(lost bool) {
	x.out.Lock()
	var ends []func()
	for id, q := range x.questions {
		switch {
		case lost && q.reserves:
			q.lost = true
			x.questions[id] = q
			q.lu.lostNow(x.nexus, 1)
		case q.end != nil:
			ends = append(ends, q.end)
		}
	}
	x.out.Unlock()
	for _, end := range ends {
		end()
	}
}

// unreserve has what a RESERVE command of a nexus that is lost holds of the unit released.
func (lu *LU) unreserve(n reserve.Nexus) {
	if !lu.arbiter.reserves(n) {
		return
	}
	if lu.Serving() {
		lu.arbiter.ask(&change{cmd: reserve.Command{Nexus: n, Action: reserve.LoseNexus}})
	} else {
		lu.unreserveElsewhere(n)
	}
}

// unreserveElsewhere is unreserve at the node that serves.
func (lu *LU) unreserveElsewhere(n reserve.Nexus) {
	if lu.around.Elsewhere == nil {
		return
	}
	lu.lostNow(n, 1)
	lu.around.Elsewhere(Question{Volume: lu.id, Nexus: n, Action: reserve.LoseNexus}, func(Answer, bool, error) { lu.lostNow(n, -1) })
}

// lostNow counts the questions that are out about a nexus that was lost, and returns how many there are.
func (lu *LU) lostNow(n reserve.Nexus, add int) int {
	lu.mu.Lock()
	defer lu.mu.Unlock()
	if add != 0 {
		if lu.lost == nil {
			lu.lost = map[reserve.Nexus]int{}
		}
		if lu.lost[n] += add; lu.lost[n] == 0 {
			delete(lu.lost, n)
		}
	}
	return lu.lost[n]
}
