package proxytest

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Encode makes one command of the arguments.
func Encode(args ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

// words splits a command line.
func words(text string) ([]string, error) {
	var args []string
	for {
		text = strings.TrimLeft(text, " ")
		if text == "" {
			return args, nil
		}
		q := text[0]
		if q != '"' && q != '\'' {
			word, rest, _ := strings.Cut(text, " ")
			args, text = append(args, word), rest
			continue
		}
		end := 1
		for end < len(text) && text[end] != q {
			if q == '"' && text[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(text) {
			return nil, errors.New("a quote is not closed")
		}
		word := text[1:end]
		if q == '"' {
			b, err := unescape(word)
			if err != nil {
				return nil, err
			}
			word = string(b)
		}
		args, text = append(args, word), text[end+1:]
	}
}

// unescape knows \r \n \t \0 \xHH; any other escaped byte stands for itself.
func unescape(s string) ([]byte, error) {
	var b bytes.Buffer
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return nil, errors.New("a backslash ends the line")
		}
		switch s[i] {
		case 'r':
			b.WriteByte('\r')
		case 'n':
			b.WriteByte('\n')
		case 't':
			b.WriteByte('\t')
		case '0':
			b.WriteByte(0)
		case 'x':
			if i+2 >= len(s) {
				return nil, errors.New(`\x wants two digits`)
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return nil, err
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.Bytes(), nil
}
