package proxy

import "testing"

func TestTransactionChangesInOnePlace(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from                    transaction
		begins, ends, disturbed transaction
	}{
		{txNone, txOpen, txNone, txNone},
		{txOpen, txOpen, txNone, txDoomed},
		{txDoomed, txDoomed, txNone, txDoomed},
	} {
		for e, want := range map[txEvent]transaction{txBegins: tt.begins, txEnds: tt.ends, txDisturbs: tt.disturbed} {
			if got := tt.from.after(e); got != want {
				t.Errorf("%d after event %d: got %d, want %d", tt.from, e, got, want)
			}
		}
	}
}
