package target

import (
	"strings"
	"testing"

	"pmsapp/internal/iscsi"
)

// TestWhyFailed: an admin who reads of a refused login learns that CHAP is what to look at.
func TestWhyFailed(t *testing.T) {
	if w := whyFailed(iscsi.LoginAuthFailed); !strings.Contains(w, "CHAP") {
		t.Error(w)
	}
	if w := whyFailed(iscsi.LoginInitiatorError); strings.Contains(w, "CHAP") {
		t.Error(w)
	}
}
