package certs

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"time"

	"dragontls/certs/reload"
)

// minMaster is the size of the ticket master secret: as strong as the keys made of it.
const minMaster = 32

// day numbers the UTC days: a ticket key serves one day and is accepted on the next.
func day(t time.Time) int64 {
	const seconds = 24 * 60 * 60
	return t.Unix() / seconds
}

// ticketKeys returns the keys of day d and the day before. They depend on what
// is trusted: a ticket from before a change of trust cannot be decrypted.
func ticketKeys(master []byte, trust [32]byte, d int64) ([][32]byte, error) {
	keys := make([][32]byte, 2)
	for i := range keys {
		info := append([]byte("dragontls session ticket 1 "), trust[:]...)
		info = binary.BigEndian.AppendUint64(info, uint64(d-int64(i)))
		key, err := hkdf.Key(sha256.New, master, nil, string(info), len(keys[i]))
		if err != nil {
			return nil, err
		}
		copy(keys[i][:], key)
	}
	return keys, nil
}

func randomMaster() []byte {
	master := make([]byte, minMaster)
	rand.Read(master) // never fails (crypto/rand)
	return master
}

// parseMaster accepts hex, base64 (standard, padded or not), other text, or raw
// bytes: at least 32 bytes of secret. Blanks around text do not count.
func parseMaster(c reload.Contents, file string) ([]byte, error) {
	data, err := c.Get(file)
	if err != nil {
		return nil, err
	}
	master := decodeMaster(data)
	if len(master) < minMaster || bytes.Count(master, master[:1]) == len(master) {
		return nil, newFault(file, ReasonTicketKeys, "make one with: openssl rand -hex 32",
			"read ticket keys %q: less than 32 bytes of secret", file)
	}
	return master, nil
}

func decodeMaster(data []byte) []byte {
	text := bytes.TrimSpace(withoutBOM(data))
	for _, b := range text {
		if (b < ' ' || b > '~') && b != '\n' && b != '\r' && b != '\t' {
			return data
		}
	}
	if d, err := hex.DecodeString(string(text)); err == nil {
		return d
	}
	if d, err := base64.StdEncoding.DecodeString(string(text)); err == nil {
		return d
	}
	if d, err := base64.RawStdEncoding.DecodeString(string(text)); err == nil {
		return d
	}
	return text
}
