package mirror

import "time"

// meter estimates when a resync ends, from the speed of late: guests make it slower and faster.
type meter struct {
	at    time.Duration // of the last sample
	done  int64         // at that time
	rate  float64       // bytes in a second; 0: not known yet
	begun bool
	first time.Duration
	guess float64 // seconds that it would take in all, as was said when a tenth was done; 0: it had no time to
	said  bool
}

// meterEvery is how long a sample is.
const meterEvery = 2 * time.Second

// add says that done bytes of total have been looked at.
func (m *meter) add(now time.Duration, done, total int64) {
	if !m.begun {
		m.begun, m.first, m.at, m.done = true, now, now, done
		return
	}
	if now-m.at >= meterEvery {
		r := float64(done-m.done) / (now - m.at).Seconds()
		if m.rate == 0 {
			m.rate = r
		}
		m.rate += (r - m.rate) * 0.3
		m.at, m.done = now, done
	}
	if !m.said && m.rate > 0 && done*10 >= total {
		m.said = true
		m.guess = (now - m.first).Seconds() + m.eta(now, done, total)
	}
}

// eta is the seconds that are left; below 0: not known.
func (m *meter) eta(now time.Duration, done, total int64) float64 {
	rate := m.rate
	if quiet := now - m.at; m.begun && quiet >= meterEvery { // a sample that is not over: nothing may move any more
		r := float64(done-m.done) / quiet.Seconds()
		w := min(1, quiet.Seconds()/(5*meterEvery.Seconds()))
		if rate += (r - rate) * w; rate < 1 {
			return -1
		}
	}
	switch {
	case done >= total:
		return 0
	case rate > 0:
	case m.begun && now > m.first:
		rate = float64(done) / (now - m.first).Seconds()
	}
	if rate < 1 {
		return -1
	}
	return float64(total-done) / rate
}
