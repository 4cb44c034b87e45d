package config

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func TestDefaultsAreLoweredToTheDescriptorLimit(t *testing.T) {
	c, err := load(environment(t), machine{descriptors: 1024, memory: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxHandshakes != 320 || c.MaxConnections != 320 || c.BackendMaxConnections != 320 {
		t.Errorf("got %d, %d, %d, want 320, 320, 320", c.MaxHandshakes, c.MaxConnections, c.BackendMaxConnections)
	}
	if len(c.Notes) != 2 || !strings.Contains(c.Notes[0].String(), "MAX_HANDSHAKES lowered from 1000 to 320") ||
		!strings.Contains(c.Notes[1].String(), "MAX_CONNECTIONS lowered from 10000 to 320") {
		t.Errorf("got notes %q", c.Notes)
	}
}

func TestExplicitConnectionsMustFit(t *testing.T) {
	m := machine{descriptors: 1064, memory: 1 << 30}
	if _, err := load(environment(t, "MAX_CONNECTIONS=450", "MAX_HANDSHAKES=100"), m); err != nil {
		t.Errorf("450 sessions, 100 handshakes and 64 files fit into 1064: %v", err)
	}
	_, err := load(environment(t, "MAX_CONNECTIONS=451", "MAX_HANDSHAKES=100"), m)
	if err == nil || !strings.Contains(err.Error(), "at most 450 under a limit of 1064 open files; lower it, or raise the limit to 1066") {
		t.Errorf("got %v", err)
	}
	if _, err := load(environment(t, "MAX_HANDSHAKES=1000"), m); err == nil || !strings.Contains(err.Error(), "leaves no descriptor") {
		t.Errorf("got %v", err)
	}
	if _, err := load(environment(t, "MAX_CONNECTIONS=1000000"), machine{}); err != nil {
		t.Errorf("an unknown limit refuses nothing: %v", err)
	}
}

// A setting that does not fit says which limit of open files is enough for it, and with that limit it is accepted.
func TestAdvisedDescriptorLimitIsAccepted(t *testing.T) {
	for _, tt := range []struct {
		vars        string
		descriptors uint64
	}{
		{"MAX_CONNECTIONS=450", 900}, {"MAX_CONNECTIONS=480", 1024}, {"MAX_CONNECTIONS=10", 70}, {"MAX_CONNECTIONS=1", 64},
		{"MAX_CONNECTIONS=10000", 1024}, {"MAX_CONNECTIONS=10000", 20064}, {"MAX_CONNECTIONS=450 MAX_HANDSHAKES=1000", 1024},
		{"MAX_CONNECTIONS=450 MAX_HANDSHAKES=100", 1000}, {"MAX_HANDSHAKES=1000", 1024}, {"", 66}, {"", 1},
		{"MAX_CONNECTIONS=2000 BACKEND_MAX_CONNECTIONS=16", 1024}, {"MAX_CONNECTIONS=2000 BACKEND_MAX_CONNECTIONS=5000", 1024},
		{"MAX_CONNECTIONS=2000 BACKEND_MAX_CONNECTIONS=16 MAX_HANDSHAKES=3000", 1024}, {"BACKEND_MAX_CONNECTIONS=16", 60},
	} {
		vars := strings.Fields(tt.vars)
		_, err := load(environment(t, vars...), machine{descriptors: tt.descriptors, memory: 8 << 30})
		if err == nil {
			t.Errorf("%q fits into %d", tt.vars, tt.descriptors)
			continue
		}
		var advised uint64
		if _, after, _ := strings.Cut(err.Error(), "raise the limit to "); after != "" {
			fmt.Sscan(after, &advised)
		}
		if advised <= tt.descriptors {
			t.Errorf("%q with %d: %v", tt.vars, tt.descriptors, err)
			continue
		}
		if _, err := load(environment(t, vars...), machine{descriptors: advised, memory: 8 << 30}); err != nil {
			t.Errorf("%q with %d: advised %d: %v", tt.vars, tt.descriptors, advised, err)
		}
		if _, set, _ := strings.Cut(err.Error(), "MAX_HANDSHAKES"); set != "" && !strings.Contains(tt.vars, "MAX_HANDSHAKES") {
			t.Errorf("%q names what is not set: %v", tt.vars, err)
		}
	}
}

// Each session may need a connection to the backend of its own, but all of them together no more than there may be.
func TestDescriptorsAreCountedByWhatTheBackendMayHave(t *testing.T) {
	m := machine{descriptors: 1064, memory: 1 << 30}
	for _, tt := range []struct {
		vars              string
		sessions, backend int
		want              string // in the error
	}{
		{"MAX_HANDSHAKES=100", 450, 450, ""},
		{"MAX_HANDSHAKES=100 MAX_CONNECTIONS=300", 300, 600, ""},
		{"MAX_HANDSHAKES=100 MAX_CONNECTIONS=400", 400, 500, ""},
		{"MAX_HANDSHAKES=100 BACKEND_MAX_CONNECTIONS=16", 884, 16, ""},
		{"MAX_HANDSHAKES=100 BACKEND_MAX_CONNECTIONS=16 MAX_CONNECTIONS=884", 884, 16, ""},
		{"MAX_HANDSHAKES=100 BACKEND_MAX_CONNECTIONS=16 MAX_CONNECTIONS=885", 0, 0, "at most 884 under a limit of 1064 open files; lower it, or raise the limit to 1065"},
		{"MAX_HANDSHAKES=100 BACKEND_MAX_CONNECTIONS=2000", 450, 2000, ""},
		{"MAX_HANDSHAKES=100 BACKEND_MAX_CONNECTIONS=2000 MAX_CONNECTIONS=451", 0, 0, "at most 450 under a limit of 1064 open files; lower it, or raise the limit to 1066"},
		{"MAX_HANDSHAKES=999", 0, 0, "leaves no descriptor"},
	} {
		c, err := load(environment(t, strings.Fields(tt.vars)...), m)
		switch {
		case tt.want != "":
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: got %v, want %q", tt.vars, err, tt.want)
			}
		case err != nil || c.MaxConnections != tt.sessions || c.BackendMaxConnections != tt.backend:
			t.Errorf("%s: got %v, %d, %d, want %d, %d", tt.vars, err, c.MaxConnections, c.BackendMaxConnections, tt.sessions, tt.backend)
		}
	}
}

// A storm of clients is no larger than MAX_CONNECTIONS. The places for their handshakes never cost a session its descriptors.
func TestHandshakesFollowConnections(t *testing.T) {
	const much = 64 << 30
	for _, tt := range []struct {
		vars        string
		descriptors uint64
		memory      int64
		handshakes  int
		sessions    int
	}{
		{"", 1 << 20, much, 10000, 10000},
		{"", 0, much, 10000, 10000},
		{"MAX_CONNECTIONS=30000", 1 << 20, much, 30000, 30000},
		{"MAX_CONNECTIONS=50", 1 << 20, much, 1000, 50},
		{"MAX_HANDSHAKES=20", 1 << 20, much, 20, 10000},
		{"", 1 << 20, 2 << 30, 2048, 10000}, // an eighth of MEMORY_LIMIT, 64 KiB for each
		{"", 30064, much, 10000, 10000},     // 64 for files, and 10,000 each for handshakes, sessions and the backend
		{"", 20000, much, 6645, 6645},
		{"", 4096, much, 1344, 1344},
		{"MAX_CONNECTIONS=9468", 20000, much, 1000, 9468}, // all that 9,468 connections to the backend leave
		{"MAX_CONNECTIONS=450", 1024, much, 60, 450},      // fewer than usual: the sessions come first
		{"MAX_CONNECTIONS=479", 1024, much, 2, 479},
		{"MAX_CONNECTIONS=2", 70, much, 2, 2},
		{"", 70, much, 2, 2},
		{"MAX_CONNECTIONS=9000", 20000, much, 1936, 9000},
		{"MAX_CONNECTIONS=6000", 20000, much, 6000, 6000},
		{"BACKEND_MAX_CONNECTIONS=16", 20000, much, 9960, 9960},
		{"BACKEND_MAX_CONNECTIONS=16", 3000, much, 1460, 1460},
		{"BACKEND_MAX_CONNECTIONS=16 MAX_CONNECTIONS=8000", 20000, much, 8000, 8000},
		{"BACKEND_MAX_CONNECTIONS=19000", 20000, much, 6645, 6645}, // sessions can use no more than 6,645 of these
	} {
		c, err := load(environment(t, strings.Fields(tt.vars)...), machine{descriptors: tt.descriptors, memory: tt.memory})
		if err != nil || c.MaxHandshakes != tt.handshakes || c.MaxConnections != tt.sessions {
			t.Errorf("%q with %d descriptors: got %v, %d, %d, want %d, %d", tt.vars, tt.descriptors, err,
				c.MaxHandshakes, c.MaxConnections, tt.handshakes, tt.sessions)
			continue
		}
		used := c.MaxHandshakes + c.MaxConnections + min(c.BackendMaxConnections, c.MaxConnections) + reservedDescriptors
		if tt.descriptors > 0 && used > int(tt.descriptors) {
			t.Errorf("%q takes %d of %d descriptors", tt.vars, used, tt.descriptors)
		}
	}
}

func TestMemoryLimitIsHalfOfWhatThereIs(t *testing.T) {
	for _, test := range []struct{ memory, want int64 }{{8 << 30, 4 << 30}, {0, 512 << 20}, {1 << 20, minMemory}} {
		c, err := load(environment(t), machine{memory: test.memory})
		if err != nil || int64(c.MemoryLimit) != test.want {
			t.Errorf("%d: got %d, %v, want %d", test.memory, c.MemoryLimit, err, test.want)
		}
	}
}

func TestDefaultsAreLoweredToTheMemoryLimit(t *testing.T) {
	c, err := load(environment(t, "MEMORY_LIMIT=128mb"), machine{descriptors: 1 << 20, memory: 8 << 30})
	if err != nil {
		t.Fatal(err)
	}
	if c.MaxHandshakes != 256 || c.MaxConnections != 2184 || c.BackendMaxConnections != 4368 {
		t.Errorf("got %d, %d, %d, want 256, 2184, 4368", c.MaxHandshakes, c.MaxConnections, c.BackendMaxConnections)
	}
	want := []Note{{NoteMemory, "DRAGONTLS_MAX_HANDSHAKES", "lowered from 1000 to 256: DRAGONTLS_MEMORY_LIMIT is 128mb"},
		{NoteMemory, "DRAGONTLS_MAX_CONNECTIONS", "lowered from 10000 to 2184: DRAGONTLS_MEMORY_LIMIT is 128mb"}}
	if !slices.Equal(c.Notes, want) {
		t.Errorf("got notes %q, want %q", c.Notes, want)
	}
	if got := c.ClientMemory(); got != 80<<20 {
		t.Errorf("got %d for clients, want 80 MiB", got)
	}
}

func TestExplicitLimitsMustFitTheMemory(t *testing.T) {
	m := machine{descriptors: 1 << 20, memory: 8 << 30}
	for vars, want := range map[string]string{
		"MEMORY_LIMIT=128mb MAX_CONNECTIONS=2184 MAX_HANDSHAKES=256": "",
		"MEMORY_LIMIT=128mb MAX_CONNECTIONS=2185":                    "at most 2184 with a MEMORY_LIMIT of 128mb; lower it, or raise MEMORY_LIMIT to 129mb",
		"MEMORY_LIMIT=128mb MAX_HANDSHAKES=257":                      "at most 256 with a MEMORY_LIMIT of 128mb; lower it, or raise MEMORY_LIMIT to 129mb",
		"MAX_CONNECTIONS=200000":                                     "at most 69905 with a MEMORY_LIMIT of 4gb",
	} {
		_, err := load(environment(t, strings.Fields(vars)...), m)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want %q", vars, err, want)
		}
	}
}

func TestMemoryComesFromTheTightestCgroup(t *testing.T) {
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	meminfo := file("MemFree: 1 kB\nMemTotal:       4096 kB\n")
	for _, test := range []struct {
		name string
		root fstest.MapFS
		want int64
	}{
		{"nothing", fstest.MapFS{}, 0},
		{"machine", fstest.MapFS{"proc/meminfo": meminfo}, 4 << 20},
		{"v2, no limit", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n")}, 4 << 20},
		{"v2, parent's", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/a/b\n"), "sys/fs/cgroup/a/memory.max": file("1048576\n"), "sys/fs/cgroup/a/b/memory.max": file("max\n")}, 1 << 20},
		{"v2, namespace", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("2097152\n")}, 2 << 20},
		{"v1", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("5:cpu,memory:/docker/x\n1:cpu:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("1048576\n")}, 1 << 20},
		{"v1, no limit", fstest.MapFS{"proc/meminfo": meminfo, "proc/self/cgroup": file("5:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")}, 4 << 20},
	} {
		if got := memoryOf(test.root); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
}

func TestLoadSeesThisMachine(t *testing.T) {
	c, err := Load(environment(t))
	if err != nil {
		t.Fatal(err)
	}
	if c.MemoryLimit < minMemory {
		t.Errorf("got a memory limit of %d", c.MemoryLimit)
	}
}
