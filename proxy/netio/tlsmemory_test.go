package netio

import "testing"

func TestTLSInputKnowsWhatCryptoTLSHolds(t *testing.T) {
	t.Parallel()
	record := func(n int) []byte { return append([]byte{23, 3, 3, byte(n >> 8), byte(n)}, make([]byte, n)...) }
	for name, tt := range map[string]struct {
		bytes      []byte
		gave       bool
		held, kept int64
	}{
		"nothing":                  {nil, false, 0, 0},
		"a small record":           {record(100), true, 0, 0},
		"a header's half":          {record(16000)[:4], false, 0, 0},
		"a header":                 {record(16000)[:5], false, 2 * 16512, 0},
		"half a record":            {record(16000)[:9000], false, 2 * 16512, 0},
		"a record":                 {record(16000), true, 0, 2 * 16512},
		"a record, and a small":    {append(record(16000), record(5)...), true, 0, 2 * 16512},
		"a record, and a header":   {append(record(16000), record(100)[:5]...), true, 2 * 16512, 0},
		"parts of a message":       {append(record(4000), record(4000)...), false, 16000, 0},
		"records without a length": {append(record(0), record(0)...), false, 0, 0},
		"longer than allowed":      {record(60000)[:5], false, 2 * (PageSize + 2048 + recordRoom), 0},
	} {
		for _, cut := range []int{1, 3, 7, 1 << 20} {
			a := NewBuffers(0).NewAccount()
			s := Socket{account: a}
			for b := tt.bytes; len(b) > 0; b = b[min(cut, len(b)):] {
				s.input.took(b[:min(cut, len(b))])
				s.CountTLS()
				if held, kept := s.input.memory(); a.Held() != held || a.Kept() != kept {
					t.Fatalf("%s, cut at each %d: counts %d held and %d kept, not %d and %d", name, cut, a.Held(), a.Kept(), held, kept)
				}
			}
			if tt.gave {
				s.Decrypted()
			}
			if a.Held() != tt.held || a.Kept() != tt.kept {
				t.Errorf("%s, cut at each %d: held %d, kept %d, want %d, %d", name, cut, a.Held(), a.Kept(), tt.held, tt.kept)
			}
			if s.Decrypted(); a.Held() > 0 && s.input.left == 0 {
				t.Errorf("%s, cut at each %d: %d bytes are held of whole records whose bytes crypto/tls has returned", name, cut, a.Held())
			}
			if s.Release(); a.Held() != 0 {
				t.Errorf("%s, cut at each %d: %d bytes held after the end", name, cut, a.Held())
			}
		}
	}
}
