package iscsi

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// steady is a source of "random" bytes that are always the same.
type steady byte

func (s steady) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s) + byte(i)
	}
	return len(b), nil
}

func transcribe(out *strings.Builder, who string, p *LoginPDU) {
	h := &p.BHS
	fmt.Fprintf(out, "%s csg=%d", who, h.CSG())
	if h.Has(FlagTransit) {
		fmt.Fprintf(out, " T nsg=%d", h.NSG())
	}
	if h.Has(FlagContinue) {
		out.WriteString(" C")
	}
	if h.Opcode() == OpLoginResp {
		fmt.Fprintf(out, " %s", h.LoginStatus())
	}
	out.WriteByte('\n')
	for item := range strings.SplitSeq(strings.TrimSuffix(string(p.Data), "\x00"), "\x00") {
		if item == "" {
			continue
		}
		if len(item) > 120 {
			item = fmt.Sprintf("%s... (%d bytes)", item[:100], len(item))
		}
		fmt.Fprintf(out, "    %s\n", item)
	}
}

// converse runs a login of two pure ends and returns its transcript.
func converse(ic InitiatorLoginConfig, tc TargetLoginConfig, keys []Pair) (string, *InitiatorLogin, *TargetLogin, error) {
	var out strings.Builder
	i, err := NewInitiatorLogin(ic)
	if err != nil {
		return "", nil, nil, err
	}
	t := NewTargetLogin(tc)
	req := i.First()
	for range 100 {
		transcribe(&out, "initiator", &req)
		req.BHS.setLengths(0, len(req.Data))
		resp, step := t.Request(&req.BHS, req.Data)
		if step == LoginReady {
			resp = t.Accept(7, keys)
		}
		transcribe(&out, "target", &resp)
		next, done, err := i.Response(&resp.BHS, resp.Data)
		if err != nil {
			fmt.Fprintf(&out, "initiator: %v\n", err)
			return out.String(), i, t, err
		}
		if done {
			if step != LoginReady || i.TSIH() != 7 {
				return out.String(), i, t, errors.New("the ends do not agree that it is over")
			}
			fmt.Fprintf(&out, "initiator: %+v\ntarget: %+v\n", i.Params(), t.Params())
			return out.String(), i, t, nil
		}
		req = next
	}
	return out.String(), i, t, errors.New("no end")
}

func TestLoginGolden(t *testing.T) {
	plain := func(Names) (Auth, LoginStatus) { return Auth{}, LoginOK }
	host := Credentials{"host", []byte("a secret of the host")}
	array := Credentials{"array", []byte("a secret of the array")}
	chap := func(Names) (Auth, LoginStatus) { return Auth{Initiator: host, Own: array}, LoginOK }
	base := InitiatorLoginConfig{Initiator: "iqn.2026-11.app.pmsapp:host", Target: "iqn.2026-11.app.pmsapp:lun", Wish: DefaultWish(), Rand: steady(1)}
	target := TargetLoginConfig{Wish: DefaultWish(), PortalGroup: 3, Rand: steady(100), Auth: plain}
	for _, c := range []struct {
		name string
		edit func(i *InitiatorLoginConfig, t *TargetLoginConfig)
		keys []Pair
		want error
	}{
		{name: "plain"},
		{name: "discovery", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) { i.Discovery, i.Target = true, "" }},
		{name: "chap", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) { t.Auth, i.Own = chap, host }},
		{name: "chap-mutual", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) { t.Auth, i.Own, i.Peer = chap, host, array }},
		{name: "chap-wrong", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			t.Auth, i.Own = chap, Credentials{"host", []byte("wrong")}
		}},
		{name: "chap-other-name", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			t.Auth, i.Own = chap, Credentials{"hosts", host.Secret}
		}},
		{name: "chap-missing", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) { t.Auth = chap }},
		{name: "chap-unknown-to-target", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) { i.Own = host }},
		{name: "chap-wrong-target", want: ErrAuth, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			t.Auth, i.Own, i.Peer = chap, host, Credentials{"array", []byte("other")}
		}},
		{name: "digests", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			i.Wish.HeaderDigest, i.Wish.DataDigest = DigestAlways, DigestPrefer
		}},
		{name: "digests-refused", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			i.Wish.HeaderDigest, t.Wish.HeaderDigest = DigestNever, DigestAlways
		}},
		{name: "low-limits", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			t.Wish.MaxRecv, t.Wish.MaxBurst, t.Wish.FirstBurst, t.Wish.MaxR2T, t.Wish.ImmediateData = 4096, 16384, 8192, 1, false
			i.Wish.InitialR2T = true
		}},
		{name: "vendor", keys: []Pair{{"X-app.pmsapp.a", "yes"}}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			i.Vendor = []Pair{{"X-app.pmsapp.a", "1"}, {"X-app.pmsapp.b", "2"}}
		}},
		{name: "long", edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			i.Vendor = []Pair{{"X-a", strings.Repeat("a", 8000)}, {"X-b", strings.Repeat("b", 8000)}}
		}},
		{name: "forbidden", want: &LoginError{}, edit: func(i *InitiatorLoginConfig, t *TargetLoginConfig) {
			t.Auth = func(Names) (Auth, LoginStatus) { return Auth{}, LoginForbidden }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			i, tc := base, target
			if c.edit != nil {
				c.edit(&i, &tc)
			}
			got, il, tl, err := converse(i, tc, c.keys)
			var refused *LoginError
			switch c.want.(type) {
			case nil:
				if err != nil {
					t.Fatalf("%v\n%s", err, got)
				}
				a, b := il.Params(), tl.Params()
				if a.MaxSend != b.MaxRecv || a.MaxRecv != b.MaxSend || a.MaxBurst != b.MaxBurst || a.FirstBurst != b.FirstBurst {
					t.Errorf("the ends differ: %+v %+v", a, b)
				}
			case *LoginError:
				if !errors.As(err, &refused) {
					t.Fatalf("%v\n%s", err, got)
				}
			default:
				if !errors.Is(err, c.want) {
					t.Fatalf("%v\n%s", err, got)
				}
			}
			file := filepath.Join("testdata", "login", c.name+".txt")
			if *update {
				os.MkdirAll(filepath.Dir(file), 0o777)
				if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// request builds a login request of text.
func request(flags byte, text string) (*BHS, []byte) {
	var h BHS
	h.Init(OpLoginReq, flags)
	data := []byte(strings.ReplaceAll(text, " ", "\x00"))
	if len(data) > 0 {
		data = append(data, 0)
	}
	h.setLengths(0, len(data))
	return &h, data
}

const toFull = FlagTransit | 1<<2 | 3

// TestTargetAnswers has one request each, and what of the answer matters.
func TestTargetAnswers(t *testing.T) {
	const names = "InitiatorName=iqn.a TargetName=iqn.b "
	for _, c := range []struct {
		name   string
		flags  byte
		text   string
		want   []string // pairs of the answer
		status LoginStatus
	}{
		{"obsolete markers", toFull, names + "IFMarker=Yes OFMarker=No IFMarkInt=1 OFMarkInt=2", []string{"IFMarker=No", "OFMarker=No", "IFMarkInt=Reject", "OFMarkInt=Reject"}, LoginOK},
		{"unknown", toFull, names + "Unheard=of", []string{"Unheard=NotUnderstood"}, LoginOK},
		{"vendor", toFull, names + "X-com.example.a=b", []string{"X-com.example.a=NotUnderstood"}, LoginOK},
		{"out of range", toFull, names + "MaxBurstLength=511 DefaultTime2Wait=3601 MaxOutstandingR2T=0", []string{"MaxBurstLength=Reject", "DefaultTime2Wait=Reject", "MaxOutstandingR2T=Reject"}, LoginOK},
		{"not a number", toFull, names + "FirstBurstLength=?", []string{"FirstBurstLength=Reject"}, LoginOK},
		{"hexadecimal", toFull, names + "MaxBurstLength=0x10000", []string{"MaxBurstLength=65536"}, LoginOK},
		{"not a boolean", toFull, names + "InitialR2T=yes", []string{"InitialR2T=Reject"}, LoginOK},
		{"levels", toFull, names + "ErrorRecoveryLevel=2 MaxConnections=8 iSCSIProtocolLevel=2 TaskReporting=FastAbort,RFC3720", []string{"ErrorRecoveryLevel=0", "MaxConnections=1", "iSCSIProtocolLevel=1", "TaskReporting=RFC3720"}, LoginOK},
		{"order", toFull, names + "DataPDUInOrder=No DataSequenceInOrder=No", []string{"DataPDUInOrder=Yes", "DataSequenceInOrder=Yes"}, LoginOK},
		{"digest list", toFull, names + "HeaderDigest=X-md5,CRC32C,None DataDigest=X-md5", []string{"HeaderDigest=CRC32C", "DataDigest=Reject"}, LoginOK},
		{"discovery", toFull, "InitiatorName=iqn.a SessionType=Discovery MaxBurstLength=4096", []string{"MaxBurstLength=Irrelevant"}, LoginOK},
		{"SendTargets", toFull, names + "SendTargets=All", []string{"SendTargets=Reject"}, LoginOK},
		{"straight to full feature", FlagTransit | 3, names + "AuthMethod=None", []string{"AuthMethod=None", "TargetPortalGroupTag=1"}, LoginOK},
		{"no initiator", toFull, "TargetName=iqn.b", nil, LoginMissingParameter},
		{"no target", toFull, "InitiatorName=iqn.b", nil, LoginMissingParameter},
		{"twice", toFull, names + "MaxBurstLength=4096 MaxBurstLength=8192", nil, LoginInitiatorError},
		{"two names", toFull, names + "TargetName=iqn.c", nil, LoginInitiatorError},
		{"bad declaration", toFull, names + "MaxRecvDataSegmentLength=100", nil, LoginInitiatorError},
		{"bad session type", toFull, names + "SessionType=Else", nil, LoginBadSessionType},
		{"bad stage", FlagTransit | 2<<2 | 3, names, nil, LoginInitiatorError},
		{"back", FlagTransit | 1<<2 | 1, names, nil, LoginInitiatorError},
		{"T and C", FlagTransit | FlagContinue | 1<<2 | 3, names, nil, LoginInitiatorError},
		{"no equals sign", toFull, "InitiatorName", nil, LoginInitiatorError},
		{"CHAP only", FlagTransit | 1, names + "AuthMethod=CHAP", nil, LoginAuthFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := NewTargetLogin(TargetLoginConfig{Wish: DefaultWish(), PortalGroup: 1, Rand: steady(1),
				Auth: func(Names) (Auth, LoginStatus) { return Auth{}, LoginOK }})
			resp, step := l.Request(request(c.flags, c.text))
			if step == LoginReady {
				resp = l.Accept(1, nil)
			}
			if s := resp.BHS.LoginStatus(); s != c.status || (step == LoginFailed) != (s != LoginOK) {
				t.Fatalf("status %s, step %d", s, step)
			}
			for _, w := range c.want {
				if !bytes.Contains(append([]byte{0}, resp.Data...), []byte("\x00"+w+"\x00")) {
					t.Errorf("no %s in %q", w, resp.Data)
				}
			}
		})
	}
}

func TestTargetRefusesVersionAndChangedIdentity(t *testing.T) {
	fresh := func() *TargetLogin {
		return NewTargetLogin(TargetLoginConfig{Wish: DefaultWish(), Rand: steady(1),
			Auth: func(Names) (Auth, LoginStatus) { return Auth{}, LoginOK }})
	}
	h, data := request(toFull, "InitiatorName=iqn.a TargetName=iqn.b")
	h[3] = 1
	if p, _ := fresh().Request(h, data); p.BHS.LoginStatus() != LoginBadVersion {
		t.Error(p.BHS.LoginStatus())
	}
	for i := range []int{8, 14, 16, 20} {
		l := fresh()
		if _, step := l.Request(request(1<<2, "InitiatorName=iqn.a TargetName=iqn.b")); step != LoginGoesOn {
			t.Fatal(step)
		}
		h, data := request(toFull, "")
		h[[]int{8, 14, 16, 20}[i]]++
		if _, step := l.Request(h, data); step != LoginFailed {
			t.Error(i, step)
		}
	}
}

func TestCHAPReflection(t *testing.T) {
	host := Credentials{"host", []byte("a secret of the host")}
	own := Credentials{"array", []byte("a secret of the array")}
	c, err := newChallenger(steady(3))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := prove(own, "1", encodeBinary(c.challenge), c.challenge); !errors.Is(err, ErrAuth) {
		t.Error("reflected:", err)
	}
	if _, err := prove(own, "256", "0x00", nil); !errors.Is(err, ErrAuth) {
		t.Error("identifier:", err)
	}
	if _, err := prove(own, "1", "0x", nil); !errors.Is(err, ErrAuth) {
		t.Error("empty:", err)
	}
	proof := CHAPResponse(c.id, host.Secret, c.challenge)
	if err := c.verify(host, "host", encodeBinary(proof[:])); err != nil {
		t.Error(err)
	}
	if err := c.verify(host, "host", encodeBinary(proof[:15])); !errors.Is(err, ErrAuth) {
		t.Error("short:", err)
	}
	_, err = NewInitiatorLogin(InitiatorLoginConfig{Initiator: "iqn.a", Target: "iqn.b", Own: host, Peer: Credentials{"x", host.Secret}, Rand: steady(1)})
	if !errors.Is(err, ErrAuth) {
		t.Error("one secret for both directions:", err)
	}
	// MD5("\x01" + "secret" + "0123"), computed by another program.
	if got := fmt.Sprintf("%x", CHAPResponse(1, []byte("secret"), []byte("0123"))); got != md5Vector {
		t.Error(got)
	}
	for _, good := range []string{"0x0aff", "0Xaff", "0bCv8="} {
		if b, err := decodeBinary(good, 2); err != nil || !bytes.Equal(b, []byte{0x0a, 0xff}) {
			t.Error(good, b, err)
		}
	}
	for _, bad := range []string{"", "0", "0xzz", "12", "0b*", "0x010203"} {
		if _, err := decodeBinary(bad, 2); !errors.Is(err, ErrAuth) {
			t.Error(bad, err)
		}
	}
}

func FuzzTargetLogin(f *testing.F) {
	host := Credentials{"host", []byte("a secret of the host")}
	f.Add(byte(toFull), []byte("InitiatorName=a\x00TargetName=b\x00HeaderDigest=CRC32C\x00"), byte(toFull), []byte("MaxBurstLength=1\x00"), false)
	f.Add(byte(FlagTransit|1), []byte("InitiatorName=a\x00TargetName=b\x00AuthMethod=CHAP\x00"), byte(0), []byte("CHAP_A=5\x00"), true)
	f.Add(byte(0), []byte("InitiatorName=a\x00TargetName=b\x00AuthMethod=CHAP\x00CHAP_A=5\x00"), byte(FlagTransit|1), []byte("CHAP_N=host\x00CHAP_R=0x00\x00CHAP_I=1\x00CHAP_C=0x11\x00"), true)
	for _, s := range sessions(f) {
		h := BHS(s)
		f.Add(h.Flags(), s[BHSLen:][:h.DataLen()], byte(toFull), []byte{}, false)
	}
	f.Fuzz(func(t *testing.T, f1 byte, d1 []byte, f2 byte, d2 []byte, chap bool) {
		var auth Auth
		if chap {
			auth = Auth{Initiator: host, Own: Credentials{"t", []byte("other")}}
		}
		l := NewTargetLogin(TargetLoginConfig{Wish: DefaultWish(), Rand: steady(9), Auth: func(Names) (Auth, LoginStatus) { return auth, LoginOK }})
		for i := range 6 {
			h, _ := request([]byte{f1, f2}[i%2], "")
			resp, step := l.Request(h, [][]byte{d1, d2}[i%2])
			if step == LoginReady {
				if chap {
					t.Fatal("a login without the secret succeeded")
				}
				if p := l.Params(); p.MaxSend < 512 || p.FirstBurst > p.MaxBurst || p.MaxBurst < 512 {
					t.Fatalf("%+v", p)
				}
				resp = l.Accept(1, nil)
				if resp.BHS.Has(FlagContinue) {
					t.Fatal("the last response does not fit")
				}
			}
			if len(resp.Data) > LoginMaxData {
				t.Fatal("response of", len(resp.Data))
			}
			if step != LoginGoesOn {
				return
			}
		}
	})
}

func FuzzInitiatorLogin(f *testing.F) {
	f.Add(byte(toFull), []byte("HeaderDigest=None\x00MaxBurstLength=4096\x00"), byte(toFull), []byte{}, false)
	f.Add(byte(0), []byte("AuthMethod=CHAP\x00"), byte(0), []byte("CHAP_A=5\x00CHAP_I=1\x00CHAP_C=0x33\x00"), true)
	f.Fuzz(func(t *testing.T, f1 byte, d1 []byte, f2 byte, d2 []byte, chap bool) {
		cfg := InitiatorLoginConfig{Initiator: "iqn.a", Target: "iqn.b", Wish: DefaultWish(), Rand: steady(1)}
		if chap {
			cfg.Own, cfg.Peer = Credentials{"a", []byte("s")}, Credentials{"b", []byte("z")}
		}
		l, err := NewInitiatorLogin(cfg)
		if err != nil {
			t.Fatal(err)
		}
		l.First()
		for i := range 6 {
			h, _ := request([]byte{f1, f2}[i%2], "")
			h[0] = byte(OpLoginResp)
			_, done, err := l.Response(h, [][]byte{d1, d2}[i%2])
			if done && chap {
				t.Fatal("a target without the secret was believed")
			}
			if done || err != nil {
				return
			}
		}
	})
}

const md5Vector = "04453488054cce41195823273c84525b"
