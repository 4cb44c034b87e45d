package netio

import "testing"

func TestBudgetShrinksAsTheShareIsTaken(t *testing.T) {
	t.Parallel()
	b := NewBuffers(64 << 20) // a share is 16 MiB
	a, other := b.NewAccount(), b.NewAccount()
	a.Join(QuotaKey{})
	other.Join(QuotaKey{Identity: [32]byte{1}})
	for _, tt := range []struct{ held, want, others int64 }{
		{0, 4 << 20, 4 << 20}, {4 << 20, 3 << 20, 4 << 20}, {12 << 20, 1 << 20, 4 << 20}, {16 << 20, MinBudget, 4 << 20},
		{56 << 20, MinBudget, 2 << 20}, {70 << 20, MinBudget, MinBudget},
	} {
		a.Hold(tt.held)
		if got, others := a.Budget(4<<20), other.Budget(4<<20); got != tt.want || others != tt.others {
			t.Errorf("%d MiB held: budgets %d and %d, want %d and %d", tt.held>>20, got, others, tt.want, tt.others)
		}
		if a.Pressed() != (tt.held > 8<<20) || other.Pressed() {
			t.Errorf("%d MiB held: pressed %v and %v", tt.held>>20, a.Pressed(), other.Pressed())
		}
		a.Hold(-tt.held)
	}
}

func TestLowerLimitTellsTheRelieverWhatExceedsIt(t *testing.T) {
	t.Parallel()
	b := NewBuffers(0)
	a, other := b.NewAccount(), b.NewAccount()
	a.Join(QuotaKey{})
	other.Join(QuotaKey{Identity: [32]byte{1}})
	a.Hold(5 << 20)
	other.Hold(1 << 20)
	if got := b.LimitOf(nil); got != 0 || a.Scarce() || len(b.TakeExceeded()) != 0 {
		t.Errorf("without a limit: a share of %d", got)
	}
	b.SetLimit(16 << 20)
	<-b.Exceeded()
	if over := b.TakeExceeded(); len(over) != 1 || over[0] != a.Quota() || b.Excess(a.Quota()) != 1<<20 {
		t.Errorf("got %v, want the quota that holds more than 4 MiB", over)
	}
	b.SetLimit(5 << 20)
	<-b.Exceeded()
	if over := b.TakeExceeded(); len(over) != 2 || b.Excess(b.All()) != 1<<20 || !other.Scarce() {
		t.Errorf("got %v, want that quota and all", over)
	}
	b.SetLimit(0)
	other.Hold(100 << 20)
	if len(b.TakeExceeded()) != 0 || other.Scarce() || other.Budget(7) != 7 {
		t.Error("something is exceeded, or scarce, without a limit")
	}
}
