package openai

import "bytes"

// Attachments are what a chat has beside text.
type Attachments struct{ Image, Audio bool }

// AttachmentsOf looks for images and sounds among the parts of a chat's messages. req is what [Scan] made of body.
func AttachmentsOf(body []byte, req Request) (a Attachments) {
	messages := body[req.MessagesSpan[0]:req.MessagesSpan[1]]
	if !bytes.Contains(messages, []byte(`"image_url"`)) && !bytes.Contains(messages, []byte(`"input_audio"`)) {
		return a // which is nearly all of them
	}
	_ = EachElement(messages, func(message []byte) error { // it was scanned: what is no array has none
		return EachField(message, func(key, content []byte) error {
			if string(key) == "content" && content[0] == '[' {
				return EachElement(content, a.part)
			}
			return nil
		})
	})
	return a
}

func (a *Attachments) part(part []byte) error {
	if part[0] != '{' {
		return nil
	}
	return EachField(part, func(key, value []byte) error {
		if string(key) == "type" {
			a.Image = a.Image || stringIs(value, "image_url")
			a.Audio = a.Audio || stringIs(value, "input_audio")
		}
		return nil
	})
}
