package command

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"dragontls/proxy/resp"
)

func loginWords(s string) (args [][]byte) {
	for _, w := range strings.Split(s, "|") {
		args = append(args, []byte(w))
	}
	return args
}

func TestLoginOfACommand(t *testing.T) {
	t.Parallel()
	table, err := NewTable(nil)
	if err != nil {
		t.Fatal(err)
	}
	for sent, want := range map[string]Login{
		"AUTH":                          {Fault: textAuthArity},
		"AUTH|p":                        {User: []byte("default"), Password: []byte("p")},
		"auth|u|p":                      {User: []byte("u"), Password: []byte("p")},
		"AUTH||":                        {User: []byte(""), Password: []byte("")},
		"AUTH|a|b|c":                    {Fault: textAuthSyntax},
		"HELLO|3|AUTH|u|p":              {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|3")},
		"hello|2|aUtH|AUTH|SETNAME":     {User: []byte("AUTH"), Password: []byte("SETNAME"), Rest: loginWords("hello|2")},
		"HELLO|3|AUTH|u|p|SETNAME|n":    {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|3|SETNAME|n")},
		"HELLO|3|setname|n|AUTH|u|p":    {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|3|setname|n")},
		"HELLO|03|AUTH|u|p":             {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|03")},
		"HELLO| +2|AUTH|u|p":            {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO| +2")},
		"HELLO|4|AUTH|u|p":              {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|4"), Unread: true},
		"HELLO||AUTH|u|p":               {User: []byte("u"), Password: []byte("p"), Rest: loginWords("HELLO|"), Unread: true},
		"HELLO":                         {},
		"HELLO|3":                       {},
		"HELLO|AUTH|u|p":                {},
		"HELLO|3|AUTH":                  {},
		"HELLO|3|AUTH|u":                {},
		"HELLO|AUTH|AUTH|u|p":           {},
		"HELLO|3|SETNAME|n":             {},
		"HELLO|3|SETNAME|AUTH|AUTH|u|p": {},
		"HELLO|3|AUTH|u|p|SETNAME":      {},
		"HELLO|3|AUTH|u|p|FOO":          {},
		"HELLO|3|FOO|AUTH|u|p":          {},
		"HELLO|3|AUTH\x00|u|p":          {},
		"HELLO|3|AUTH|u|p|AUTH|u|p":     {},
		"ACL|AUTH|u|p":                  {},
		"GET|AUTH":                      {},
	} {
		args := loginWords(sent)
		c, _, _ := table.Lookup(args[0])
		l, ok := c.Login(args)
		if ok != (want.Fault != nil || want.User != nil) || !bytes.Equal(l.User, want.User) || !bytes.Equal(l.Password, want.Password) ||
			string(l.Fault) != string(want.Fault) || !slices.EqualFunc(l.Rest, want.Rest, bytes.Equal) || l.Unread != want.Unread {
			t.Errorf("%q: got %+v, %v", sent, l, ok)
		}
	}
}

// helloOf reads a HELLO as Redis does (networking.c): later versions take the last of several logins, 7.0 wants each to be right.
func helloOf(args [][]byte) (login, names [][]byte, wellFormed bool) {
	for j := 2; j < len(args); j++ {
		switch more := len(args) - 1 - j; {
		case strings.EqualFold(string(cWord(args[j])), "AUTH") && more >= 2:
			login = append(login, args[j+1], args[j+2])
			j += 2
		case strings.EqualFold(string(cWord(args[j])), "SETNAME") && more >= 1:
			names = append(names, args[j+1])
			j++
		default:
			return nil, nil, false
		}
	}
	return login, names, true
}

// What is left of a HELLO authenticates nobody, however a backend reads it, and does everything else that the HELLO asked for.
func FuzzHelloLogin(f *testing.F) {
	for _, s := range []string{"HELLO|3|AUTH|u|p|SETNAME|n", "HELLO|3|SETNAME|AUTH|AUTH|u|p", "hello|2|auth|setname|auth|setname|x", "HELLO|AUTH|AUTH|a|b", "HELLO|3|AUTH\x00|u|p",
		"HELLO|3|AUTH|a|b|AUTH|c|d", "HELLO|3|AUTH|AUTH|AUTH|SETNAME|AUTH\x00x"} {
		f.Add(s)
	}
	table, err := NewTable(nil)
	if err != nil {
		f.Fatal(err)
	}
	hello, _, _ := table.Lookup([]byte("HELLO"))
	f.Fuzz(func(t *testing.T, s string) {
		args := append(loginWords("HELLO"), loginWords(s)...)
		l, ok := hello.Login(args)
		login, names, wellFormed := helloOf(args)
		if !ok {
			return
		}
		if !wellFormed || len(login) != 2 || !bytes.Equal(login[0], l.User) || !bytes.Equal(login[1], l.Password) || l.Fault != nil {
			t.Fatalf("%q: got %+v, a backend reads %q", args, l, login)
		}
		left, still, goodRest := helloOf(l.Rest)
		if len(left) != 0 || !goodRest || !slices.EqualFunc(still, names, bytes.Equal) || !bytes.Equal(l.Rest[1], args[1]) {
			t.Fatalf("%q: %q is left", args, l.Rest)
		}
		for _, a := range l.Rest {
			if strings.EqualFold(string(cWord(a)), "AUTH") && IsWord(cWord(a), "AUTH") {
				t.Fatalf("%q: %q is left", args, l.Rest)
			}
		}
		frame := resp.AppendWords(nil, l.Rest)
		if got := resp.SplitArgs(frame, nil); !slices.EqualFunc(got, l.Rest, bytes.Equal) {
			t.Fatalf("%q is sent as %q", l.Rest, frame)
		}
		if text := hello.Inspect(l.Rest, nil, true); string(text) == string(textOwnAuth) {
			t.Fatalf("%q is refused", l.Rest)
		}
	})
}
