package replica

import (
	"context"
	"log/slog"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"pmsapp/internal/ids"
)

// freer gives the space of deleted replicas back, one after the other. A replica is deleted when it has lost its name; to free what it had
// may take minutes, in which nothing is to wait: no command, no fence, no start of the node. What is left at the end of the process
// the next one finds by its name.
type freer struct {
	disk   disk
	inline bool // for tests that replay: a directory is removed at once, by who adds it
	log    *slog.Logger
	cancel context.CancelFunc
	work   sync.WaitGroup
	wake   chan struct{} // has room for one

	mu    sync.Mutex // guards what follows
	left  []string   // directories: as many as replicas were deleted
	count uint64     // the highest number in a name so far
}

// freeAgain is how long a directory that could not be removed is left alone.
const freeAgain = time.Minute

// newFreer makes one that does nothing yet.
func newFreer(d disk) *freer { return &freer{disk: d, wake: make(chan struct{}, 1)} }

// start begins to free.
func (f *freer) start(log *slog.Logger) {
	f.log = log
	ctx, cancel := context.WithCancel(context.Background())
	f.cancel = cancel
	f.work.Go(func() { f.run(ctx) })
}

// close ends it after the directory that is being removed.
func (f *freer) close() {
	if f.cancel != nil {
		f.cancel()
		f.work.Wait()
	}
}

// name returns one for what is left of the replica in dir, which nothing has yet.
func (f *freer) name(dir string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	return dir + "." + strconv.FormatUint(f.count, 10) + extGone
}

// add has a directory removed, at some time.
func (f *freer) add(path string) {
	if f.inline {
		f.disk.removeAll(path)
		return
	}
	f.mu.Lock()
	f.left = append(f.left, path)
	if _, n, ok := goneName(filepath.Base(path)); ok {
		f.count = max(f.count, n)
	}
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

func (f *freer) run(ctx context.Context) {
	for {
		f.mu.Lock()
		todo := f.left
		f.left = nil
		f.mu.Unlock()
		failed := f.free(ctx, todo)
		f.mu.Lock()
		f.left = append(f.left, failed...)
		f.mu.Unlock()
		again := time.NewTimer(freeAgain)
		select {
		case <-ctx.Done():
			again.Stop()
			return
		case <-f.wake:
		case <-again.C:
		}
		again.Stop()
	}
}

// free removes directories, and returns those that it could not.
func (f *freer) free(ctx context.Context, todo []string) (failed []string) {
	for _, path := range todo {
		if ctx.Err() != nil {
			return nil
		}
		if err := f.disk.removeAll(path); err != nil {
			f.log.Error("the space of a deleted replica cannot be given back; it is tried again", "path", path, "err", err)
			failed = append(failed, path)
		}
	}
	return failed
}

const extGone = ".gone"

// goneName takes apart the name of what is left of a replica: a volume's id, a number (older programs wrote none), and "gone".
func goneName(name string) (base string, n uint64, ok bool) {
	rest, ok := strings.CutSuffix(name, extGone)
	if !ok {
		return "", 0, false
	}
	base, number, numbered := strings.Cut(rest, ".")
	if _, err := ids.Parse(base); err != nil {
		return "", 0, false
	}
	if numbered {
		var err error
		if n, err = strconv.ParseUint(number, 10, 64); err != nil {
			return "", 0, false
		}
	}
	return base, n, true
}
