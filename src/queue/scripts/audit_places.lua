#!lua flags=no-writes
-- Looks at one page of a structure: whether what stands in it belongs there.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  which: 'stream', 'due', 'park', 'wake', 'dead' or 'dl'
-- ARGV[6]  of which lane, or cause
-- ARGV[7]  where to begin: an entry id to begin after, or a rank
-- ARGV[8]  at most how many
-- Result: {where to go on, findings}; '' at the end

local which, name, from, most = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local findings = {}

local function find(text)
  findings[#findings + 1] = text
end

-- Whether a piece says that it is at `place`.
local function check(place, id, index, words)
  if not id then
    find('something unreadable ' .. words)
    return
  end
  local piece, is_unreadable = read_piece(id, index)
  if is_unreadable then return end -- Its record is told of.
  if not piece then
    find(id .. '/' .. index .. ' ' .. words .. ' and has no record')
  elseif piece.state ~= 'P' or piece.place ~= place or piece.lane ~= name then
    find(id .. '/' .. index .. ' ' .. words .. ' and belongs elsewhere')
  end
end

if which == 'stream' then
  if from == '0-0' and not look('XPENDING', stream_of(name), GROUP) then
    find('the lane ' .. name .. ' has no group')
  end
  local entries = look('XRANGE', stream_of(name), '(' .. from, '+', 'COUNT', most) or {}
  for _, read in ipairs(entries) do
    local id, index = read_entry(read[2])
    check('e' .. read[1], id, index, 'stands in the lane ' .. name)
  end
  return { #entries == most and entries[#entries][1] or '', findings }
end

local keys = {
  due = due_of(name), park = park_of(name), wake = wake_of(name), dead = letters_of(name), dl = DEADLINES,
}
local first = tonumber(from)
local members = look('ZRANGE', keys[which], first, first + most - 1) or {}
for _, member in ipairs(members) do
  if which == 'due' then
    local id, index = read_member(member)
    check('d', id, index, 'is delayed in the lane ' .. name)
  elseif which == 'park' then
    local id, index = read_parked_member(member)
    check('k', id, index, 'is parked in the lane ' .. name)
  elseif which == 'wake' then
    local low, high = park_range(member)
    if #(look('ZRANGEBYLEX', park_of(name), low, high, 'LIMIT', 0, 1) or {}) == 0 then
      find('a destination of the lane ' .. name .. ' is woken without parked work')
    end
  elseif which == 'dead' then
    local id, index = read_member(member)
    local letter = id and look('HGET', record_of(id), 'x' .. index)
    if not letter or string.match(letter, '^(%a+)|') ~= name then
      -- An ended record may go a moment before its letters are unlisted.
      local died_at = moment(redis.call('ZSCORE', keys.dead, member))
      if not died_at or died_at > now - retention_ms then find((id or 'something') .. '/' .. (index or '') .. ' is listed as a letter and is none') end
    end
  elseif not has_record(member) then
    find('message ' .. member .. ' has a deadline and no record')
  end
end
return { #members == most and whole(first + most) or '', findings }
