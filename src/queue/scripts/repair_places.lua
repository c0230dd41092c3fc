#!lua flags=allow-oom
-- Puts one page of a structure right: what stands in it and does not belong there is removed, and buried if
-- it is all that is left of a message.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]  which: 'stream', 'due', 'park', 'wake', 'dead' or 'dl'
-- ARGV[6]  of which lane, or cause
-- ARGV[7]  where to begin: an entry id to begin after, or a rank
-- ARGV[8]  at most how many
-- Result: {where to go on, what was done}; '' at the end
-- Repeating it finds nothing to do.

local which, name, from, most = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])
local done = {}

local function note(text)
  done[#done + 1] = text
end

-- Whether a piece is where something stands in its name; if not, why that is to go.
local function stray(place, id, index)
  if not id then return 'something unreadable' end
  local piece, is_unreadable = read_piece(id, index)
  if is_unreadable then return nil end -- Its record is put right by others.
  if piece and piece.state == 'P' and piece.place == place and piece.lane == name then return nil end
  if piece and piece.state == 'P' then put_back_if_lost(piece) end
  return id .. '/' .. index
end

if which == 'stream' then
  secure_lane(name)
  if is_lane(name) and redis.call('SADD', LANES, name) == 1 then note('the lane ' .. name .. ' was not listed') end
  if not look('XPENDING', stream_of(name), GROUP) then
    redis.call('XGROUP', 'CREATE', stream_of(name), GROUP, '0', 'MKSTREAM')
    note('the lane ' .. name .. ' had no group')
  end
  local entries = look('XRANGE', stream_of(name), '(' .. from, '+', 'COUNT', most) or {}
  for _, read in ipairs(entries) do
    local entry, fields = read[1], read[2]
    local id, index = read_entry(fields)
    local what = stray('e' .. entry, id, index)
    if what and id and has_record(id) then
      drop_entry(name, entry)
      note(what .. ' stood in the lane ' .. name .. ' and belongs elsewhere')
    elseif what then
      quarantine(name, entry, fields)
      note(what .. ' stood in the lane ' .. name .. ' without a record and is buried')
    end
  end
  return { #entries == most and entries[#entries][1] or '', done }
end

local keys = {
  due = due_of(name), park = park_of(name), wake = wake_of(name), dead = letters_of(name), dl = DEADLINES,
}
local key = keys[which]
secure(key, 'zset')
local first = tonumber(from)
local members = redis.call('ZRANGE', key, first, first + most - 1, 'WITHSCORES')
local removed = 0

local function remove(member, text)
  redis.call('ZREM', key, member)
  removed = removed + 1
  note(text)
end

local function remove_stray(member, place, id, index, words)
  local what = stray(place, id, index)
  if not what then return end
  if id and not has_record(id) then
    bury_lost(name, place, id, index)
    remove(member, what .. ' ' .. words .. ' without a record and is buried')
  else
    remove(member, what .. ' ' .. words .. ' and belongs elsewhere')
  end
end

for at = 1, #members, 2 do
  local member, score = members[at], members[at + 1]
  if which == 'due' then
    local id, index = read_member(member)
    remove_stray(member, 'd', id, index, 'was delayed in the lane ' .. name)
  elseif which == 'park' then
    local id, index = read_parked_member(member)
    if tonumber(score) ~= 0 then redis.call('ZADD', key, 0, member) end
    remove_stray(member, 'k', id, index, 'was parked in the lane ' .. name)
  elseif which == 'wake' then
    local low, high = park_range(member)
    if #redis.call('ZRANGEBYLEX', park_of(name), low, high, 'LIMIT', 0, 1) == 0 then
      remove(member, 'a destination of the lane ' .. name .. ' was woken without parked work')
    end
  elseif which == 'dead' then
    local id, index = read_member(member)
    local letter = id and has_record(id) and redis.call('HGET', record_of(id), 'x' .. index)
    if not letter or string.match(letter, '^(%a+)|') ~= name then
      remove(member, (id or 'something') .. '/' .. (index or '') .. ' was listed as a letter and is none')
    end
  elseif not has_record(member) then
    remove(member, 'message ' .. member .. ' had a deadline and no record')
  end
end
return { #members / 2 == most and whole(first + most - removed) or '', done }
