package catalog

import "testing"

func TestResizeVolume(t *testing.T) {
	m, n, v := moving(t)
	id, size := v().ID, v().Size
	m.fails(ErrInvalid, ResizeVolume{1, id, 1, size - 4096, nil})
	m.fails(ErrInvalid, ResizeVolume{1, id, 1, size + 512, nil})
	m.fails(ErrInvalid, ResizeVolume{1, id, 1, maxSize + 4096, nil})
	m.fails(ErrEpoch, ResizeVolume{2, id, 1, 2 * size, nil})
	m.do(ResizeVolume{1, id, 1, 2 * size, nil})
	m.fails(ErrVersion, ResizeVolume{1, id, 1, 3 * size, nil}) // members joined or left since they were told
	if got := v(); got.Size != 2*size || got.Version != 2 {
		t.Fatalf("%+v", got)
	}
	m.do(TakeOver{n[1].ID, 2})
	m.fails(ErrNotServed, ResizeVolume{2, id, 2, 3 * size, nil})
}
