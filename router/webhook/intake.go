package webhook

import (
	"sync"
	"time"
)

const (
	// defaultBudget is the memory for all bodies whose signature is not checked yet.
	// Each of the listener's connections, 768 at most, may have a body of usual size in
	// it, so a usual delivery always finds room; a task of 256 MiB keeps three quarters
	// of its memory.
	defaultBudget = 64 << 20

	blockSize = 32 << 10 // a body grows by such blocks; most deliveries need one

	// A body of this size is never dropped for another in its first second. A
	// workflow_job delivery has some 10 KB, one with many steps 50.
	usualBody = 64 << 10
	usualTime = time.Second

	// pace is the bytes a second of a body that keeps its place. github.com sends
	// 25 MiB at most and waits 10 s for the answer, an Enterprise Server 30 s:
	// https://docs.github.com/en/webhooks/using-webhooks/best-practices-for-using-webhooks (2026-11-29).
	pace = defaultMaxBytes / 10
)

// An intake holds the bodies whose signature is not checked yet, within a budget. When
// that is used up, the body that is furthest behind its pace is dropped. It is safe for
// concurrent use.
type intake struct {
	blocks sync.Pool // of *[blockSize]byte

	mu      sync.Mutex
	free    int                // blocks of the budget
	reading map[*body]struct{} // those that are not complete
}

func newIntake(budget int64) *intake {
	return &intake{
		blocks:  sync.Pool{New: func() any { return new([blockSize]byte) }},
		free:    int(max(budget/blockSize, 1)),
		reading: map[*body]struct{}{},
	}
}

// A body is one that is read, or that waits for its signature to be checked.
type body struct {
	intake *intake
	blocks []*[blockSize]byte
	size   int // bytes in blocks

	began time.Time
	cut   func() error  // ends a read under way, from any goroutine, until it is complete
	left  chan struct{} // closed when it has released its blocks

	held int  // len(blocks), as the others see it; of intake.mu, as lost
	lost bool // it was dropped for another
}

// open begins a body. The caller must call release.
func (in *intake) open(cut func() error) *body {
	b := &body{intake: in, began: time.Now(), cut: cut, left: make(chan struct{})}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.reading[b] = struct{}{}
	return b
}

// room returns where the next bytes go; nil: the budget is used up, and this body is
// the one to drop.
func (b *body) room() []byte {
	at := b.size % blockSize
	if at == 0 && b.size == len(b.blocks)*blockSize {
		if !b.intake.take(b) {
			return nil
		}
		b.blocks = append(b.blocks, b.intake.blocks.Get().(*[blockSize]byte))
	}
	return b.blocks[len(b.blocks)-1][at:]
}

// take gives b one more block, and may drop others for it.
func (in *intake) take(b *body) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	for in.free <= 0 && !b.lost {
		v := in.slowest(time.Now())
		if v == nil {
			return false
		}
		v.lost = true
		delete(in.reading, v)
		if v == b {
			return false
		}
		if v.cut() != nil { // nothing can end its read: it is dropped when it ends by itself
			in.free += v.held
			v.held = 0
			continue
		}
		in.mu.Unlock()
		<-v.left
		in.mu.Lock()
	}
	if b.lost {
		return false
	}
	in.free--
	b.held++
	return true
}

// slowest returns the body that is furthest behind its pace; nil: all are of
// the usual size, and have just begun.
func (in *intake) slowest(now time.Time) (slowest *body) {
	var most time.Duration
	for b := range in.reading {
		age := now.Sub(b.began)
		if b.held*blockSize <= usualBody && age < usualTime {
			continue
		}
		// How full its last block is, is not known.
		behind := age - time.Duration(max(b.held-1, 0))*blockSize*time.Second/pace
		if slowest == nil || behind > most {
			slowest, most = b, behind
		}
	}
	return slowest
}

// complete records that b was read to its end; false: it was dropped for another.
func (b *body) complete() bool {
	b.intake.mu.Lock()
	defer b.intake.mu.Unlock()
	delete(b.intake.reading, b)
	return !b.lost
}

// release gives the blocks back. What parts returned must not be used afterwards.
func (b *body) release() {
	in := b.intake
	in.mu.Lock()
	delete(in.reading, b)
	in.free += b.held
	b.held = 0
	in.mu.Unlock()
	for _, block := range b.blocks {
		in.blocks.Put(block)
	}
	b.blocks, b.size = nil, 0
	close(b.left)
}

// parts calls do with the bytes of the body, in order.
func (b *body) parts(do func([]byte)) {
	left := b.size
	for _, block := range b.blocks {
		n := min(left, blockSize)
		do(block[:n])
		left -= n
	}
}

// bytes returns the whole body: in its own block, when it has one only.
func (b *body) bytes() []byte {
	if len(b.blocks) == 1 {
		return b.blocks[0][:b.size]
	}
	all := make([]byte, 0, b.size)
	b.parts(func(part []byte) { all = append(all, part...) })
	return all
}
