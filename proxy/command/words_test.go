package command

import "testing"

func TestWordsFoldInASCIIAlone(t *testing.T) {
	for _, tt := range []struct {
		b, word string
		is      bool
	}{
		{"auth", "AUTH", true}, {"aUtH", "AUTH", true}, {"AUTHx", "AUTH", false}, {"AUT", "AUTH", false}, {"AUTH\x00", "AUTH", false}, {" AUTH", "AUTH", false},
		{"\u017fETNAME", "SETNAME", false}, {"\u017fTNAME", "SETNAME", false}, {"BLOC\u212a", "BLOCK", false}, {"li\x42-name", "LIB-NAME", true},
		{"LIB-NAM\xc5", "LIB-NAME", false}, {"@", "`", false}, {"{", "[", false}, {"", "", true},
	} {
		if got := IsWord([]byte(tt.b), tt.word); got != tt.is {
			t.Errorf("%q is %s: %v", tt.b, tt.word, got)
		}
	}
	if got := upperWord([]byte("a\u017fZ\x00z[`{")); got != "A\u017fZ\x00Z[`{" {
		t.Errorf("got %q", got)
	}
	for option, blocks := range map[string]bool{"block": true, "BLOCK\x00x": true, "BLOC\u212a": false, "BLOCKS": false, "\x00BLOCK": false} {
		if got := MentionsBlock(words("XREAD", option, "0", "STREAMS", "k", "$")); got != blocks {
			t.Errorf("XREAD %q blocks: %v", option, got)
		}
	}
	for option, text := range map[string][]byte{"AUTH": nil, "AUTH\x00x": textOption, "auth\x00": textOption, "SETNAME\x00": textOption, "SETNAME": nil, "\x00AUTH": nil} {
		if got := inspectHello(words("HELLO", "3", option, "u", "p"), nil, false); string(got) != string(text) {
			t.Errorf("HELLO 3 %q: %q", option, got)
		}
	}
}
