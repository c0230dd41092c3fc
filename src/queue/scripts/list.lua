#!lua flags=no-writes
-- Names dead letters of one cause, newest first.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  the cause
-- ARGV[6]  only those that died in the last so many ms; '' for all
-- ARGV[7]  how many to pass over
-- ARGV[8]  at most how many
-- Result: {how many were looked at, and of each that has a name {message id, index, died at}}

local cause, since, offset, most = ARGV[5], tonumber(ARGV[6]), ARGV[7], ARGV[8]
local oldest = since and whole(now - since) or '-inf'
local members = look('ZREVRANGEBYSCORE', letters_of(cause), '+inf', oldest, 'WITHSCORES', 'LIMIT', offset, most) or {}
local letters = {}
for at = 1, #members, 2 do
  local id, index = read_member(members[at])
  local died_at = moment(members[at + 1])
  -- What is no letter is the audit's to tell.
  if id and died_at then letters[#letters + 1] = { id, index, died_at } end
end
return { #members / 2, letters }
